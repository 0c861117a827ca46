"""Rings between devices and programs: lengths, drift, gaps, ends."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from prunus.apps.io.sound.live import MARGIN_SECONDS, Recorder, SoundRing, SteadySpeaker
from prunus.runtime.errors import SourceError, UsageError

RATE = 16_000


def test_a_ring_fills_once_and_then_gives_what_came() -> None:
    ring = SoundRing(100, 1000)
    ring.push(np.arange(1, 81, dtype=np.float32))
    assert not ring.pull(50).any()  # not full yet
    ring.push(np.arange(81, 101, dtype=np.float32))
    out = ring.pull(50)
    np.testing.assert_allclose(out, np.arange(1, 51), atol=0.3)
    assert ring.missing == 0


@pytest.mark.parametrize("drift", [-1e-3, 1e-3])
def test_drift_between_two_clocks_is_corrected(drift: float) -> None:
    ring = SoundRing(2000, 40_000)
    came = 0.0
    for _ in range(20_000):  # 6400 samples apart at the end, three times what the ring holds
        came += 320 * (1 + drift)
        ring.push(np.zeros(int(came), np.float32))
        came -= int(came)
        ring.pull(320)
    assert ring.missing == 0 and ring.dropped == 0


@pytest.mark.parametrize(
    ("ppm", "seconds"), [pytest.param(200, 3600, marks=pytest.mark.slow), (-200, 900)]
)
def test_clocks_apart_by_200_ppm_meet_for_an_hour(ppm: float, seconds: int) -> None:
    """As in `run codec`: blocks of 20 ms that come up to 8 ms late, a speaker that takes 20 ms."""
    block, rng = RATE // 50, np.random.default_rng(0)
    target = block + int(MARGIN_SECONDS * RATE)
    ring = SoundRing(target, target + 2 * RATE)
    step = 0.02 / (1 + ppm * 1e-6)  # the microphone's 20 ms by the speaker's clock
    come = step * np.arange(1, int(seconds / step) + 1)
    apart = (len(come) - seconds * 50) * block
    assert apart == pytest.approx(RATE * seconds * ppm * 1e-6, abs=block)
    late = iter(come + rng.uniform(0.0, 0.008, len(come)))
    sound, fills, due = np.zeros(block, np.float32), [], next(late)
    for now in 0.02 * np.arange(1, seconds * 50):
        while due <= now:
            ring.push(sound)
            due = next(late)
        fills.append(ring.waiting)
        ring.pull(block)
    assert ring.missing == ring.dropped == 0
    # The clocks are 0.72 s apart after the hour; the delay stays what it was, give or take 30 ms.
    steady = np.array(fills[500:])
    assert np.abs(steady - target).max() < 0.03 * RATE


def test_a_stretched_tone_stays_whole() -> None:
    ring = SoundRing(1000, 40_000)
    time = np.arange(40_000) / RATE
    tone = np.sin(2 * np.pi * 200 * time).astype(np.float32)
    out = []
    for k in range(0, 40_000, 400):
        ring.push(tone[k : k + 400])
        out.append(ring.pull(380))  # the other clock is 5 % slow, more than can be corrected
    joined = np.concatenate(out)[2000:]
    assert np.abs(np.diff(joined)).max() < 0.1  # no click


def test_an_empty_ring_gives_silence_and_counts() -> None:
    ring = SoundRing(10, 100)
    ring.push(np.ones(20, np.float32))
    out = ring.pull(40)
    assert out[:19].all() and not out[20:].any()
    assert ring.missing == 21
    ring.push(np.ones(300, np.float32))
    assert ring.dropped == 201


def test_a_ring_needs_sizes_that_make_sense() -> None:
    with pytest.raises(UsageError, match="target"):
        SoundRing(10, 10)


class _Microphone:
    sample_rate_hz = 48_000

    def __init__(self, blocks: list[np.ndarray], error: Exception | None = None) -> None:
        self._blocks, self._error = blocks, error
        self.closed = False

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        yield from self._blocks
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self.closed = True


def test_a_recorder_gives_pieces_of_any_length_at_the_wanted_rate() -> None:
    sound = np.sin(np.arange(48_000) / 20).astype(np.float32)
    microphone = _Microphone(list(sound.reshape(-1, 480)))
    recorder = Recorder(microphone, RATE, 480)
    pieces = [recorder.take(640) for _ in range(24)]
    assert all(len(p) == 640 for p in pieces)
    assert recorder.take(3200) is None  # it has ended, and less than that is left
    recorder.close()
    assert microphone.closed
    middle = np.concatenate(pieces)[2000:12_000]
    assert np.abs(middle).max() == pytest.approx(1, abs=0.01)


def test_a_recorder_drops_the_oldest_and_counts_it() -> None:
    microphone = _Microphone([np.full(4800, k, np.float32) for k in range(30)])
    recorder = Recorder(microphone, RATE, 480, seconds=1.0)
    recorder._thread.join(10)
    first = recorder.take(640)
    assert recorder.late > 0
    assert first is not None and first[-1] > 15
    assert recorder.late + recorder.waiting + 640 == pytest.approx(48_000, abs=50)


def test_a_lost_microphone_is_told_after_what_it_gave() -> None:
    lost = SourceError("The microphone was lost.")
    recorder = Recorder(_Microphone([np.ones(4800, np.float32)], lost), RATE, 480)
    assert recorder.take(640) is not None
    with pytest.raises(SourceError, match="lost"):
        recorder.take(16_000)


class _Loudspeaker:
    name = "fake"

    def __init__(self, room: int) -> None:
        self.heard: list[np.ndarray] = []
        self.finished = self.closed = False
        self._room = threading.Semaphore(room)

    def write(self, sound: np.ndarray) -> None:
        if not self._room.acquire(timeout=5):
            return
        self.heard.append(sound)

    def more(self, blocks: int) -> None:
        self._room.release(blocks)

    def finish(self, samples: int | None) -> None:
        self.finished = True

    def close(self) -> None:
        self.closed = True


def test_a_steady_speaker_tells_of_a_device_that_has_gone() -> None:
    class Gone(_Loudspeaker):
        def write(self, sound: np.ndarray) -> None:
            raise SourceError("The speaker was lost.")

    loudspeaker = Gone(0)
    speaker = SteadySpeaker(loudspeaker, RATE)
    with pytest.raises(SourceError, match="lost"):  # whether or not anything was written since
        speaker.finish(None)
    speaker.close()
    assert loudspeaker.closed and not loudspeaker.finished


def test_a_steady_speaker_plays_everything_and_never_makes_its_writer_wait() -> None:
    loudspeaker = _Loudspeaker(0)
    speaker = SteadySpeaker(loudspeaker, RATE, delay_seconds=0.02)
    for _ in range(10):
        speaker.write(np.full(640, 2.0, np.float32))  # too loud: it is limited
    loudspeaker.more(1000)
    speaker.finish(None)
    speaker.close()
    played = np.concatenate(loudspeaker.heard)
    assert loudspeaker.finished and loudspeaker.closed
    assert played.max() == 1.0
    assert (played > 0.99).sum() == pytest.approx(6400, rel=0.02)
