"""Sound between two clocks: a ring that corrects drift, and is never heard where it cannot.

Two devices, or a sender and a device, are some millionths apart. What still waits when the next
block comes is kept around a target by playing up to half a per cent faster or slower, too little to
hear: samples are read between their places by a windowed sinc. Where there is nothing to play, or
too much, sound is faded out and in, or from the old place into the new one, and counted.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.runtime.audio.reblock import Held
from prunus.runtime.errors import UsageError

Audio = npt.NDArray[np.float32]
STRETCH = 0.005  # largest change of speed by which drift is corrected
FADE_SECONDS = 0.005  # of every seam
_AVERAGE_SECONDS = 2.0  # over which what waits is judged: deliveries are uneven
_SLACK_SECONDS = 0.0005  # in which a slope is given up
_REACH = 8  # samples to each side of a place between samples


def ramp(count: int) -> Audio:
    """Return (count,) that rises from 0 to 1 without an edge at either end: half a cosine."""
    angle = np.pi * (np.arange(count) + 0.5) / max(count, 1)
    rising: Audio = (0.5 - 0.5 * np.cos(angle)).astype(np.float32)
    return rising


def blended(before: Audio | float, block: Audio, fade: int) -> Audio:
    """Return a block that begins as another sound, or value, and becomes its own within `fade`."""
    fade = min(fade, len(block))
    rising, out = ramp(fade), block.copy()
    start = before[:fade] if isinstance(before, np.ndarray) and before.ndim else before
    out[:fade] = start * (1 - rising) + block[:fade] * rising
    return out


def carried_on(end: Audio, sample_rate_hz: int) -> Audio:
    """Return what could follow the end of a sound for the length of a fade: no step, no corner.

    Args:
        end: The last two samples.
        sample_rate_hz: Of the sound.
    """
    count, slack = round(FADE_SECONDS * sample_rate_hz), _SLACK_SECONDS * sample_rate_hz
    away = slack * (1.0 - np.exp(-np.arange(1, count + 1) / slack))
    found: Audio = (end[-1] + (end[-1] - end[0]) * away).astype(np.float32)
    return found


class SoundRing:
    """Samples on their way to a device that takes them in its own time.

    Args:
        target: Samples that should still wait when the next block comes: its delay.
        limit: Samples above which the oldest are dropped, down to the target and a block.
        sample_rate_hz: Of the sound.
        block: Samples that come at once.
        steady: Correct drift, drop and fade in; otherwise whoever writes waits for room, and all
            that was written is played as it is.

    Attributes:
        missing: Samples of silence that were given because the ring was empty, once it had begun.
        gaps: How often that happened.
        dropped: Samples that were dropped because the ring was full.
        overruns: How often that happened.
    """

    def __init__(
        self, target: int, limit: int, sample_rate_hz: int = 16_000, block: int = 0,
        *, steady: bool = True,
    ) -> None:  # fmt: skip
        if not 0 < target < limit - block:
            raise UsageError(f"Got a target of {target} and a limit of {limit} samples.")
        self.target, self.limit, self.steady = target, limit, steady
        self._block = block
        self.missing = self.dropped = self.gaps = self.overruns = 0
        self._fade = min(round(FADE_SECONDS * sample_rate_hz), target // 2)
        self._window = _AVERAGE_SECONDS * sample_rate_hz
        self._held = Held()
        self._at = 0.0  # place of the next sample
        self._least = float(target)  # samples that wait when a block comes, over a while
        self._waited = 0  # samples of silence since there was something new to play
        self._fresh = False
        self._before: Audio | None = None  # what would have come, where some was dropped
        self._playing = self._begun = False
        self._pulled = 0
        self._gained = 0.0  # samples that were played beyond those that went by
        self._lock = threading.Lock()

    @property
    def waiting(self) -> float:
        """Samples that wait, with the part of one that speed leaves over."""
        return self._held.end - self._at

    @property
    def ready(self) -> bool:
        """Whether `pull` gives sound: the first has waited long enough, and it did not run dry."""
        enough = self._waited if self.steady else self.waiting
        return self._playing or enough >= self.target

    @property
    def drift_ppm(self) -> float:
        """Mean change of speed so far: by how much the writer's clock is faster, in millionths."""
        return 1e6 * self._gained / max(self._pulled, 1)

    def push(self, block: Audio) -> None:
        """Append (T,) float32 samples."""
        with self._lock:
            if self._playing:
                share = min(1.0, len(block) / self._window)
                self._least += (self.waiting - self._least) * share
            self._held.push(block)
            self._fresh = True
            extra = int(self.waiting) - self.target - self._block
            if self.steady and self.waiting > self.limit:
                if self._playing and self._before is None:
                    self._before = self._read(self._at + np.arange(self._fade))
                self._at += extra
                self.dropped += extra
                self.overruns += 1
                self._least = self.target
            self._held.forget(int(self._at) - _REACH)

    def pull(self, count: int) -> Audio:
        """Return exactly `count` samples: silence until the first has waited for the target."""
        with self._lock:
            out = np.zeros(count, np.float32)
            rising = not self._playing and (self._begun or self.steady)
            if not self._playing:
                if not self.ready:
                    self._waited += count if self._fresh else 0
                    self.missing += count if self._begun else 0
                    return out
                self._playing = self._begun = True
                self._least = self.target
            speed = self._speed()
            places = self._at + speed * np.arange(count)
            last = self._held.end - 1 - (_REACH if speed != 1.0 else 0)
            usable = int((places <= last).sum())
            out[:usable] = self._read(places[:usable])
            if self._before is not None:
                out, self._before = blended(self._before, out, len(self._before)), None
            if rising:
                out = blended(0.0, out, self._fade)
            self._at += speed * usable
            self._pulled += usable
            self._gained += (speed - 1.0) * usable
            if last - self._at < self._fade:  # nobody knows whether more comes: fade while we can
                fade = min(self._fade, usable)
                out[usable - fade : usable] *= ramp(fade)[::-1]
                self.missing += count - usable
                self.gaps += 1
                self._playing = self._fresh = False  # fill up again rather than stutter
                self._waited = 0
            return out

    def rest(self) -> Audio:
        """Return what still waits, to its end."""
        with self._lock:
            out = self._read(np.arange(self._at, self._held.end))
            if self.steady and len(out):
                fade = min(self._fade, len(out))
                out[len(out) - fade :] *= ramp(fade)[::-1]
                out = out if self._playing else blended(0.0, out, self._fade)
            self._at = float(self._held.end)
            return out

    def _speed(self) -> float:
        beyond = (self._least - self.target) / self.target if self.steady else 0.0
        return 1.0 + STRETCH * min(max(beyond, -1.0), 1.0)

    def _read(self, places: npt.NDArray[np.floating[Any]]) -> Audio:
        """Return the sound at (n,) places, zeros beyond both ends."""
        if not len(places):
            return np.zeros(0, np.float32)
        whole = np.floor(places).astype(np.int64)
        first = int(whole[0]) - _REACH + 1
        near = self._held.take(first, int(whole[-1]) + _REACH + 1)
        part = (places - whole)[:, None]
        if not part.any():
            found: Audio = near[whole - first]
            return found
        offsets = np.arange(1 - _REACH, _REACH + 1)
        distance = offsets - part
        taps = np.sinc(distance) * np.cos(np.pi * distance / (2 * _REACH + 2)) ** 2
        taps /= taps.sum(axis=1, keepdims=True)  # a constant stays what it is
        out: Audio = np.einsum("nk,nk->n", near[whole[:, None] + offsets - first], taps)
        return out.astype(np.float32)
