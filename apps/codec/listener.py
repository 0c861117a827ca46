"""Brings sound of any rate, with any faults, to what a codec takes, and remembers what was done."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from prunus.runtime.audio.resample import Formula, Resampler
from prunus.runtime.errors import UsageError

if TYPE_CHECKING:
    from prunus.apps.io.frames import SoundSource

Audio = npt.NDArray[np.float32]
_FULL_SCALE = 0.9999  # what a converter that was driven too hard gives, rounding included
_ABOVE = 1.0001  # float files go further: what lies above was not clipped
_CLIPPED_RUN = 3  # so many such samples in a row are clipping, not a peak


class Listener:
    """Brings sound to a codec's rate and remembers what was done to it.

    Args:
        source: What comes in.
        to_hz: Rate of the codec.
        strict: Refuse what would otherwise be changed with a notice.
        formula: Of the resampler.

    Raises:
        UsageError: the source is not what the codec takes, and `strict` is set.
    """

    def __init__(
        self, source: SoundSource, to_hz: int, *, strict: bool, formula: Formula = "soxr"
    ) -> None:
        self.strict = strict
        self._notes: list[str] = []
        self._bad = self._clipped = self._run = 0
        self._peak, self._cut = 0.0, False
        from_hz = source.sample_rate_hz
        if from_hz != to_hz:
            self.note(f"resampled from {from_hz} to {to_hz} Hz")
        if source.channels > 1:
            self.note(f"averaged over {source.channels} channels")
        if source.disguised:
            self.note(f"read as {source.disguised}, which it is, not WAV")
        if source.unmeasured:
            self.note(f"taken as whole: a cut {source.unmeasured} looks like a short one")
        self._source = source
        self._note_end()
        self._resampler = Resampler(from_hz, to_hz, formula)

    def note(self, text: str) -> None:
        """Remember a change; with `strict`, refuse it."""
        if self.strict:
            raise UsageError(
                f"The sound would have to be {text}.", "Leave out --strict, or convert it first."
            )
        self._notes.append(text)

    @property
    def latency_s(self) -> float:
        """Seconds of sound that the resampler holds back."""
        return self._resampler.latency_s

    def push(self, block: Audio) -> Audio:
        """Return the block as the codec takes it; raises UsageError for NaN under `strict`."""
        finite = np.isfinite(block)
        if not finite.all():
            if self.strict:
                raise UsageError("The sound holds NaN or infinity.", "Leave out --strict.")
            self._bad += int((~finite).sum())
            block = np.where(finite, block, np.float32(0.0))
        self._judge_peaks(np.abs(block))
        return self._resampler.push(block)

    def flush(self) -> Audio:
        """Return what the resampler still holds; raises UsageError for a cut end under `strict`."""
        self._note_end()
        if self._source.cancels:
            self.note("averaged to silence: each channel is the other one negated")
        return self._resampler.flush()

    def notes(self) -> tuple[str, ...]:
        """Return all notices."""
        found = list(self._notes)
        if self._bad:
            found.append(f"replaced {self._bad} samples that were not finite by silence")
        if self._peak > _ABOVE:
            decibels = 20.0 * math.log10(self._peak)
            found.append(
                f"peaks are up to {decibels:.1f} dB above full scale, not clipped; coded as is"
            )
        if self._clipped:
            found.append(f"{self._clipped} samples are clipped at full scale; coded as they are")
        return tuple(found)

    def _note_end(self) -> None:
        """Say once that the end is missing: many formats show it at the end only."""
        if self._source.ends_early and not self._cut:
            self._cut = True
            self.note(f"taken without its end: {self._source.ends_early}")

    def _judge_peaks(self, level: Audio) -> None:
        self._peak = max(self._peak, float(level.max(initial=0.0)))
        full = (level >= _FULL_SCALE) & (level <= _ABOVE)
        if not full.any():
            self._run = 0
            return
        edges = np.flatnonzero(np.diff(np.concatenate(([False], full, [False])).astype(np.int8)))
        for first, last in edges.reshape(-1, 2):
            length = int(last - first) + (self._run if first == 0 else 0)
            if length >= _CLIPPED_RUN:
                self._clipped += int(last - first)
            self._run = length if last == len(full) else 0
