"""Change the sample rate of audio, whole or piece by piece.

Everything that people hear or feed goes through the SoX resampler (package ``soxr``): linear
phase, aliases 130 dB down. Networks whose training data went through torchaudio are fed through its
formula, whose images they know: a sinc cut off at 0.99 of the lower Nyquist frequency under a Hann
window six zero crossings wide. A stream in pieces of any length gives the samples that the whole
would, ceil(T * to / from) of them.
"""

from __future__ import annotations

import math
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from prunus.runtime.audio.reblock import Held
from prunus.runtime.errors import MissingDependencyError, UsageError
from prunus.runtime.protocols import Stream

Audio = npt.NDArray[np.float32]
Formula = Literal["soxr", "torchaudio"]
LOWEST_HZ, HIGHEST_HZ = 1_000, 768_000
_QUALITY = "HQ"  # 20 bits: stop band from Nyquist on, below -130 dB
_CROSSINGS = 6
_ROLLOFF = 0.99
_TERMS = 1 << 18  # products at a time: bounds the memory of long inputs


def check_rate(sample_rate_hz: int, what: str) -> None:
    """Refuse sample rates that no sound has.

    Args:
        sample_rate_hz: Samples per second.
        what: Whose rate it is, for the message.

    Raises:
        UsageError: the rate lies outside 1 kHz to 768 kHz.
    """
    if not LOWEST_HZ <= sample_rate_hz <= HIGHEST_HZ:
        raise UsageError(
            f"{what} has a sample rate of {sample_rate_hz} Hz; expected "
            f"{LOWEST_HZ} to {HIGHEST_HZ} Hz.",
            "Convert it first, for example with: ffmpeg -i IN -ar 48000 out.wav",
        )


class Resampler(Stream[npt.ArrayLike, Audio]):
    """A stream of mono samples at one rate in, at another out.

    Args:
        from_hz: Rate of what goes in.
        to_hz: Rate of what comes out.
        formula: ``torchaudio`` for networks that were trained with it.

    Raises:
        UsageError: a rate outside 1 kHz to 768 kHz.
        MissingDependencyError: soxr is not installed; equal rates do not need it.

    Example:
        >>> resampler = Resampler(48000, 24000)
        >>> half = np.concatenate([resampler.push(np.zeros(480, np.float32)), resampler.flush()])
        >>> len(half)
        240
    """

    def __init__(self, from_hz: int, to_hz: int, formula: Formula = "soxr") -> None:
        check_rate(from_hz, "The sound that comes in")
        check_rate(to_hz, "The sound that is wanted")
        self.sample_rate_hz = self._old = from_hz
        self._new, self._formula = to_hz, formula
        self._waited = 0.0
        self.reset()

    def reset(self) -> None:
        """See `Stream`; what it has cost so far is still known."""
        self._filter: _Filter | None = None
        if self._old != self._new:
            self._filter = (_Soxr if self._formula == "soxr" else _Sinc)(self._old, self._new)
        self._taken = 0  # samples that went in
        self._given = 0  # samples that came out

    @property
    def latency(self) -> int:
        """Most input samples that were still inside after a push so far: what it costs live."""
        return math.ceil(self._waited)

    def push(self, samples: npt.ArrayLike) -> Audio:
        """Take (T,) float32 samples; return the output samples that are complete by now."""
        new = np.ascontiguousarray(samples, dtype=np.float32)
        self._taken += len(new)
        out = new if self._filter is None else self._filter.push(new)
        self._given += len(out)
        self._waited = max(self._waited, self._taken - self._given * self._old / self._new)
        return out

    def flush(self) -> Audio:
        """End the stream: return the rest, ceil(T * to / from) samples in all."""
        missing = -(-self._taken * self._new // self._old) - self._given
        if self._filter is None or not missing:
            return np.zeros(0, dtype=np.float32)
        self._given += missing
        return self._filter.end()[:missing]


def resample(audio: npt.ArrayLike, from_hz: int, to_hz: int, formula: Formula = "soxr") -> Audio:
    """Resample a whole signal.

    Args:
        audio: (T,) float32.
        from_hz: Its rate.
        to_hz: The wanted rate.
        formula: See `Resampler`.

    Returns:
        (ceil(T * to_hz / from_hz),) float32.
    """
    resampler = Resampler(from_hz, to_hz, formula)
    return np.concatenate((resampler.push(audio), resampler.flush()))


class _Filter(Protocol):
    """Changes the rate, and at its end gives at least as many samples as the sound lasts."""

    def push(self, new: Audio) -> Audio:
        """Return what is complete."""

    def end(self) -> Audio:
        """Return the rest, silence following."""


class _Soxr:
    def __init__(self, old: int, new: int) -> None:
        self._stream: Any = _soxr().ResampleStream(old, new, 1, dtype="float32", quality=_QUALITY)
        self._more = old // new + 2  # it rounds its length, and the whole has the ceiling

    def push(self, new: Audio) -> Audio:
        out: Audio = self._stream.resample_chunk(new)
        return out

    def end(self) -> Audio:
        out: Audio = self._stream.resample_chunk(np.zeros(self._more, np.float32), last=True)
        return out


class _Sinc:
    """Output sample n lies at n * old / new: a phase of `new`, each with its own few taps."""

    def __init__(self, old: int, new: int) -> None:
        common = math.gcd(old, new)
        self._old, self._new = old // common, new // common
        cutoff = min(self._old, self._new) * _ROLLOFF
        self._reach = math.ceil(_CROSSINGS * self._old / cutoff)
        self._cutoff = cutoff / self._old  # of the input's Nyquist frequency
        self._offsets = np.arange(-self._reach, self._reach + 1)
        self._next = 0  # number of the next output sample
        self._held = Held(start=-self._reach)
        self._held.push(np.zeros(self._reach, np.float32))

    def push(self, new: Audio) -> Audio:
        self._held.push(new)
        # The last place whose taps are all there, and the first output sample behind it.
        last = self._held.end - 1 - self._reach
        until = -(-(last + 1) * self._new // self._old) if last >= 0 else 0
        step = max(1, _TERMS // len(self._offsets))
        parts = [
            self._at(np.arange(k, min(k + step, until))) for k in range(self._next, until, step)
        ]
        self._next = max(self._next, until)
        self._held.forget(self._next * self._old // self._new - self._reach)
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def end(self) -> Audio:
        return self.push(np.zeros(self._reach + 1 + self._old // self._new, np.float32))

    def _at(self, numbers: npt.NDArray[np.int64]) -> Audio:
        """Return these output samples; taps are computed in float64."""
        place, phase = np.divmod(numbers * self._old, self._new)
        distance = self._offsets - phase[:, None] / self._new
        t = np.clip(distance * self._cutoff, -_CROSSINGS, _CROSSINGS)
        taps = np.sinc(t) * np.cos(t * np.pi / _CROSSINGS / 2.0) ** 2 * self._cutoff
        samples = self._held.items[place[:, None] + self._offsets - self._held.start]
        out: Audio = np.einsum("nk,nk->n", taps.astype(np.float32), samples)
        return out


def _soxr() -> Any:
    try:
        import soxr
    except ImportError:
        raise MissingDependencyError("soxr", "audio", "Changing the sample rate") from None
    return soxr
