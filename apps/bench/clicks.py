"""Clicks for measuring delays: a sound of them, and when each came out again.

A click is a short burst of a voice-like tone, since codecs of speech drop anything else. It is
found by its loudness over time, which a codec keeps even where it draws phases of its own.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from prunus.apps.bench.loopback import Track
from prunus.apps.io.frames import Audio
from prunus.apps.io.sources.sound import formant_gain
from prunus.runtime.errors import CheckFailedError

Floats = npt.NDArray[np.float64]
LONGEST = 4.0  # seconds of delay that are looked for
HINT = "Give a trained codec, and a machine that keeps up; prunus run codec counts what is lost."
_STEP = 0.001  # seconds between values of the loudness over time
_SMOOTH = 0.008  # over so many seconds
_CLICK, _LEAST, _MOST = 0.1, 0.35, 0.65  # length of a click, and from one to the next
_PITCH = 150.0
_NEAR = 0.25  # by which one click may differ from all
_APART = 0.06  # by which most of them may
_BEFORE, _BEHIND = 40, 120  # steps around the beginning of a click that are compared
_ALIKE = 0.6  # correlation from which a click was heard
_FIRST = 0.8  # seconds without clicks: models warm up


def clicks(seconds: float, sample_rate_hz: int, seed: int = 0) -> tuple[Audio, Floats]:
    """Return (T,) float32 sound, and the seconds at which its clicks begin.

    The time between two is uneven, so that no other shift of the sound looks like the right one.
    """
    rng, places, at = np.random.default_rng(seed), [], _FIRST
    while at + _CLICK < seconds - 0.1:
        places.append(at)
        at += rng.uniform(_LEAST, _MOST)
    tick = np.arange(round(_CLICK * sample_rate_hz)) / sample_rate_hz
    tone = np.zeros(len(tick))
    for hertz in _PITCH * np.arange(1, 26):
        tone += formant_gain(hertz) * np.sin(2 * np.pi * hertz * tick)
    burst = (0.12 * tone * np.exp(-tick / (_CLICK / 2))).astype(np.float32)
    sound = np.zeros(round(seconds * sample_rate_hz), np.float32)
    for place in places:
        first = round(place * sample_rate_hz)
        sound[first : first + len(burst)] += burst
    return sound, np.array(places)


def delays(said: Track, heard: Track, places: Floats) -> Floats:
    """Return the delay of each click in seconds, NaN where it was not heard.

    Args:
        said: What went in; its clock and that of `heard` are the same.
        heard: What came out.
        places: Seconds from the first sample of `said` to each click.

    Raises:
        CheckFailedError: nothing like it was heard.
    """
    one, other = _loudness(said), _loudness(heard)
    shift = round((said.begun - heard.begun) / _STEP)  # from a place in `said` to that in `heard`
    alike = np.array([_alike(one, other, round(p / _STEP), shift) for p in places])
    # One delay for all, give or take a little, that most of them are found at.
    span = round(_APART / _STEP)
    near = np.lib.stride_tricks.sliding_window_view(alike, 2 * span + 1, axis=1).max(axis=2)
    scores = near.mean(axis=0)
    if not len(scores) or scores.max() < _ALIKE:
        raise CheckFailedError("Nothing like what was said was heard.", HINT)
    middle = int(scores.argmax()) + span
    first = max(0, middle - round(_NEAR / _STEP))
    found = alike[:, first : middle + round(_NEAR / _STEP)]
    lags = (found.argmax(axis=1) + first - span) * _STEP
    return np.where(found.max(axis=1) > _ALIKE, lags, np.nan)


def _alike(one: Floats, other: Floats, place: int, shift: int) -> Floats:
    """Return the correlation of a click with what was heard, by how many steps later it is.

    It begins with -`_APART` seconds, so that a delay of none lies inside.
    """
    piece = one[place - _BEFORE : place + _BEHIND]
    begin = place - _BEFORE + shift - round(_APART / _STEP)
    end = begin + round((LONGEST + 2 * _APART) / _STEP) + len(piece) - 1
    floor = float(other.min(initial=0.0))
    padded = np.concatenate((
        np.full(max(0, -begin), floor), other[max(0, begin) : max(0, end)],
        np.full(max(0, end - max(len(other), begin)), floor),
    ))  # fmt: skip
    windows = np.lib.stride_tricks.sliding_window_view(padded[: end - begin], len(piece))
    centred = piece - piece.mean()
    power = windows.var(axis=1) * len(piece) * (centred @ centred)
    inner: Floats = windows @ centred
    found: Floats = np.divide(inner, np.sqrt(power), out=np.zeros_like(inner), where=power > 1e-6)
    return found


def _loudness(track: Track) -> Floats:
    """Return the logarithm of the power of a sound, every millisecond."""
    power = np.square(track.sound, dtype=np.float64)
    total = np.concatenate(([0.0], np.cumsum(power)))
    count = int(len(power) / track.sample_rate_hz / _STEP)
    middle = np.arange(count) * _STEP * track.sample_rate_hz
    half = _SMOOTH / 2 * track.sample_rate_hz
    low, high = (np.clip(middle + s * half, 0, len(power)).astype(int) for s in (-1, 1))
    mean = (total[high] - total[low]) / np.maximum(high - low, 1)
    level: Floats = np.log10(np.maximum(mean, max(mean.max(initial=0.0), 1e-9) * 1e-3))
    return level  # what is 30 dB below the loudest is no click
