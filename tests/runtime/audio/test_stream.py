"""Windows of a graph whose answers are known: which counts where, and how seams are blended."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.runtime.audio.stream import Lane, Windows
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import TensorError
from prunus.runtime.tasks.codec.card import CodecPreprocess

HOP, FADE = 8, 5


def _card(*, left=2, right=2, fade=FADE):
    pre = CodecPreprocess(16000, HOP, 8, left, right, fade)
    codes = TensorSpec("codes", "int64", (1, 8), ("codebook", "frame"))
    return SimpleNamespace(name="toy", preprocess=pre, inputs=(codes,))


def _windows(run, *, eager=False, **changes):
    return Windows(
        run, _card(**changes), {"codes": Lane(1)}, {"sound": Lane(HOP)}, eager=eager
    )  # fmt: skip


def _louder():
    """Return a graph whose n-th answer is the constant n."""
    count = iter(range(100))
    return lambda feed, frames: {"sound": np.full((1, 8 * HOP), next(count), np.float32)}


def _same(feed, frames):
    return {"sound": np.repeat(feed["codes"], HOP, axis=1).astype(np.float32)}


def _all(windows, codes):
    parts = [windows.push({"codes": codes}), windows.flush()]
    return np.concatenate([part["sound"] for part in parts if part], axis=-1)[0]


def test_seams_are_a_straight_line_over_the_fade() -> None:
    """The middle of sample k of n has the share (k + 0.5) / n of the newer window."""
    sound = _all(_windows(_louder()), np.zeros((1, 14), np.int64))
    ramp = (np.arange(FADE) + 0.5) / FADE
    # The first window counts for six frames, each later one for four.
    expected = np.concatenate([
        np.zeros(6 * HOP), ramp, np.ones(4 * HOP - FADE), 1 + ramp, np.full(4 * HOP - FADE, 2.0),
    ])  # fmt: skip
    np.testing.assert_allclose(sound, expected, atol=1e-6)


def test_without_a_fade_seams_are_cut() -> None:
    sound = _all(_windows(_louder(), fade=0), np.zeros((1, 14), np.int64))
    assert sound.tolist() == [0.0] * (6 * HOP) + [1.0] * (4 * HOP) + [2.0] * (4 * HOP)


def test_what_is_blended_is_the_same_moment_of_both_windows() -> None:
    """A graph that answers with the time of each sample gives a steady clock, seams included."""

    def clock(feed, frames):
        moments = feed["codes"][..., None] * HOP + np.arange(HOP)
        return {"sound": moments.reshape(1, -1).astype(np.float32)}

    for eager in (False, True):
        sound = _all(_windows(clock, eager=eager), np.arange(30)[None])
        np.testing.assert_allclose(sound, np.arange(30 * HOP), atol=1e-3)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_pieces_give_the_same_as_one(sizes, eager) -> None:
    codes = np.random.default_rng(0).integers(0, 100, (1, sum(sizes)))
    windows, parts, at = _windows(_same, eager=eager), [], 0
    for size in sizes:
        parts.append(windows.push({"codes": codes[:, at : at + size]}))
        at += size
    parts.append(windows.flush())
    found = [part["sound"][0] for part in parts if part]
    sound = np.concatenate(found) if found else np.zeros(0)
    np.testing.assert_allclose(sound, np.repeat(codes[0], HOP), rtol=1e-6)


def test_other_inputs_are_refused() -> None:
    with pytest.raises(TensorError, match="expected"):
        _windows(_same).push({"sound": np.zeros((1, 8))})
