"""Change the sample rate of audio: windowed-sinc interpolation, whole or piece by piece.

The filter is the one that WavTokenizer's loader uses (torchaudio's default): a sinc cut off at 0.99
of the lower Nyquist frequency under a Hann window six zero crossings wide. Its taps are computed in
float64. A stream in pieces of any length gives the very samples that the whole would.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import UsageError

Audio = npt.NDArray[np.float32]
_CROSSINGS = 6
_ROLLOFF = 0.99
_BLOCK = 4096  # output groups per matrix product: bounds the memory of long inputs


class Resampler:
    """A stream of mono samples at one rate in, at another out.

    Args:
        from_hz: Rate of what goes in.
        to_hz: Rate of what comes out.

    Raises:
        UsageError: a rate that is not positive.

    Example:
        >>> resampler = Resampler(48000, 24000)
        >>> half = np.concatenate([resampler.push(np.zeros(480, np.float32)), resampler.flush()])
        >>> len(half)
        240
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        if from_hz < 1 or to_hz < 1:
            raise UsageError(f"Got sample rates {from_hz} and {to_hz} Hz; expected positive ones.")
        common = math.gcd(from_hz, to_hz)
        self._old, self._new = from_hz // common, to_hz // common
        self._taps, self._reach = _kernel(self._old, self._new)
        self._taken = 0  # samples that went in
        self._given = 0  # samples that came out
        self._pending = np.zeros(self._reach, dtype=np.float32)

    @property
    def delay(self) -> int:
        """Input samples that must follow a sample before its place in the output is complete."""
        return 0 if self._old == self._new else self._reach + self._old

    def push(self, samples: npt.ArrayLike) -> Audio:
        """Take (T,) float32 samples; return the output samples that are complete by now."""
        new = np.asarray(samples, dtype=np.float32)
        self._taken += len(new)
        if self._old == self._new:
            self._given += len(new)
            return new
        self._pending = np.concatenate((self._pending, new))
        return self._emit()

    def flush(self) -> Audio:
        """End the stream: return the rest, ceil(T * to / from) samples in all."""
        if self._old == self._new:
            return np.zeros(0, dtype=np.float32)
        total = -(-self._taken * self._new // self._old)
        self._pending = np.concatenate(
            (self._pending, np.zeros(self._reach + self._old, dtype=np.float32))
        )
        before = self._given
        rest = self._emit()[: total - before]
        self._given = total
        return rest

    def _emit(self) -> Audio:
        width = self._taps.shape[1]
        groups = (len(self._pending) - width) // self._old + 1
        if groups < 1:
            return np.zeros(0, dtype=np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(self._pending, width)
        windows = windows[:: self._old][:groups]
        parts = [
            (windows[k : k + _BLOCK] @ self._taps.T).reshape(-1) for k in range(0, groups, _BLOCK)
        ]
        self._pending = self._pending[groups * self._old :].copy()
        out = np.concatenate(parts).astype(np.float32, copy=False)
        self._given += len(out)
        return out


def resample(audio: npt.ArrayLike, from_hz: int, to_hz: int) -> Audio:
    """Resample a whole signal.

    Args:
        audio: (T,) float32.
        from_hz: Its rate.
        to_hz: The wanted rate.

    Returns:
        (ceil(T * to_hz / from_hz),) float32.
    """
    resampler = Resampler(from_hz, to_hz)
    return np.concatenate((resampler.push(audio), resampler.flush()))


def resample_blocks(blocks: Iterator[Audio], from_hz: int, to_hz: int) -> Iterator[Audio]:
    """Resample a stream of (T,) blocks; the same rate passes through untouched."""
    resampler = Resampler(from_hz, to_hz)
    for block in blocks:
        out = resampler.push(block)
        if len(out):
            yield out
    rest = resampler.flush()
    if len(rest):
        yield rest


def _kernel(old: int, new: int) -> tuple[Audio, int]:
    """Return (new, 2 * reach + old) taps: row p makes output sample p of each group of `new`."""
    cutoff = min(old, new) * _ROLLOFF
    reach = math.ceil(_CROSSINGS * old / cutoff)
    offset = np.arange(-reach, reach + old, dtype=np.float64) / old
    phase = np.arange(new, dtype=np.float64)[:, None] / new
    t = np.clip((offset - phase) * cutoff, -_CROSSINGS, _CROSSINGS)
    window = np.cos(t * np.pi / _CROSSINGS / 2.0) ** 2
    return (np.sinc(t) * window * cutoff / old).astype(np.float32), reach
