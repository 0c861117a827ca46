"""What is heard where codes are missing: the last sound for a moment, then nothing, no clicks."""

import numpy as np
import pytest

from prunus.runtime.audio.packets import Group
from prunus.runtime.errors import TensorError
from prunus.runtime.tasks.codec.card import CodeStream
from prunus.runtime.tasks.codec.codec import CodecFormat
from prunus.runtime.tasks.codec.concealment import LossyDecoder

HOP = 160  # 10 ms


class _Tone:
    """A decoder that says which code it was given: a constant of that height, two frames late."""

    def __init__(self):
        self.values = []
        self.given = 0

    def push(self, codes):
        self.values += [v / 100.0 for v in codes["codes"][0]]
        return self._out(max(0, len(self.values) - 2))

    def flush(self):
        return self._out(len(self.values))

    def _out(self, until):
        now, self.given = self.values[self.given : until], until
        return np.repeat(np.array(now, np.float32), HOP)


class _Codec:
    def __init__(self, voice=0, stride=1):
        self.format = CodecFormat(
            "toy", 16000, HOP, (CodeStream("codes", 1, 100, stride),), voice, "ab" * 32, True
        )

    def decoder(self, voice, eager):
        return _Tone()


def _codes(*values):
    return Group(0, len(values), {"codes": np.array([values])})


def _lost(frames):
    return Group(0, frames, None)


def _frames(parts):
    return np.concatenate(parts).reshape(-1, HOP)


def test_without_loss_the_sound_is_untouched():
    decoder = LossyDecoder(_Codec())
    sound = _frames([decoder.push(_codes(10, 20)), decoder.push(_codes(30)), decoder.flush()])
    assert np.array_equal(sound, np.repeat([[0.1], [0.2], [0.3]], HOP, axis=1).astype(np.float32))
    assert decoder.lost == 0


def test_a_short_gap_repeats_and_a_long_one_fades_to_silence():
    decoder = LossyDecoder(_Codec())
    groups = [_codes(10, 50), _lost(20), _codes(50, 50, 50)]
    sound = _frames([*map(decoder.push, groups), decoder.flush()])
    assert len(sound) == 25 and decoder.lost == 20
    np.testing.assert_allclose(sound[2:6], 0.5)  # 40 ms as before
    means = sound[6:18].mean(axis=1)
    assert (np.diff(means) < 0).all() and 0 < means[-1] < 0.05
    np.testing.assert_array_equal(sound[18:22], 0.0)
    np.testing.assert_allclose(sound[22, -1], 0.5)  # back within one frame
    np.testing.assert_allclose(sound[23:], 0.5)
    assert np.abs(np.diff(sound[2:].reshape(-1))).max() < 0.5 / HOP * 1.01  # no step anywhere


def test_the_gain_is_one_straight_line_down_and_one_up() -> None:
    """40 ms as before, 120 ms down, silence; back over one frame: each sample's gain."""
    decoder = LossyDecoder(_Codec())
    sound = np.concatenate(
        [*map(decoder.push, (_codes(50), _lost(18), _codes(50, 50))), decoder.flush()]
    )
    down, up = 12 * HOP, HOP
    expected = np.concatenate([
        np.ones(5 * HOP), 1 - np.arange(1, down + 1) / down, np.zeros(2 * HOP),
        np.arange(1, up + 1) / up, np.ones(HOP),
    ])  # fmt: skip
    np.testing.assert_allclose(sound / 0.5, expected, atol=1e-6)


def test_a_gap_that_ends_on_the_way_down_rises_from_there() -> None:
    decoder = LossyDecoder(_Codec())
    sound = _frames(
        [*map(decoder.push, (_codes(50), _lost(10), _codes(50, 50))), decoder.flush()]
    ) / 0.5  # fmt: skip
    low = 1 - 6 / 12  # 100 ms: half of the fade
    assert sound[10, -1] == pytest.approx(low)
    np.testing.assert_allclose(sound[11], low + (1 - low) * np.arange(1, HOP + 1) / HOP, atol=1e-6)
    np.testing.assert_allclose(sound[12], 1.0)


def test_one_gap_in_pieces_is_one_gap():
    whole, pieces = LossyDecoder(_Codec()), LossyDecoder(_Codec())
    expected = [whole.push(_codes(70)), whole.push(_lost(12)), whole.flush()]
    got = [pieces.push(_codes(70)), *(pieces.push(_lost(3)) for _ in range(4)), pieces.flush()]
    np.testing.assert_array_equal(np.concatenate(got), np.concatenate(expected))


def test_loss_at_the_start_is_silence_of_the_right_length():
    decoder = LossyDecoder(_Codec())
    sound = _frames([decoder.push(_lost(3)), decoder.push(_codes(80, 80)), decoder.flush()])
    assert len(sound) == 5
    np.testing.assert_array_equal(sound[:3], 0.0)
    np.testing.assert_allclose(sound[4], 0.8)


def test_frames_before_the_voice_are_silent():
    decoder = LossyDecoder(_Codec(voice=4))
    before = decoder.push(_codes(90, 90))
    decoder.voice = np.zeros(4, np.float32)
    sound = _frames([before, decoder.push(_codes(90, 90)), decoder.flush()])
    assert len(sound) == 4
    np.testing.assert_array_equal(sound[:2], 0.0)
    np.testing.assert_allclose(sound[3], 0.9)


def test_lost_frames_come_in_whole_strides():
    decoder = LossyDecoder(_Codec(stride=4))
    with pytest.raises(TensorError, match="multiple of 4"):
        decoder.push(_lost(3))
