"""How far a decoded sound is from its original, and how a codec uses its codes. numpy alone.

None of these says how good something sounds; `prunus.apps.judges` has those that come closer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import TensorError
from prunus.runtime.tasks.codec.card import CodeStream

Audio = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
MOST_DB = 100.0  # equal sounds: an infinite ratio could not be averaged
_RESOLUTIONS = ((512, 128), (1024, 256), (2048, 512))
_MELS = 80
_FLOOR_DB = 80.0  # below the loudest band of the original nothing counts


def si_sdr_db(original: Audio, decoded: Audio) -> float:
    """Return the scale-invariant signal-to-distortion ratio (Le Roux et al., ICASSP 2019).

    Args:
        original: (T,) float32.
        decoded: (T,) float32, aligned to it.

    Returns:
        Decibels within +-`MOST_DB`; the means of both are taken out first.

    Raises:
        TensorError: the lengths differ.
    """
    x, y = _pair(original, decoded)
    x, y = x - x.mean(), y - y.mean()
    power = float(x @ x)
    if power == 0.0:
        return MOST_DB if float(y @ y) == 0.0 else -MOST_DB
    target = (float(x @ y) / power) * x
    wanted, rest = float(target @ target), float(((y - target) ** 2).sum())
    ratio = 10.0 * np.log10(max(wanted, 1e-30) / max(rest, 1e-30))
    return float(np.clip(ratio, -MOST_DB, MOST_DB))


def mel_distance_db(original: Audio, decoded: Audio, sample_rate_hz: int) -> float:
    """Return the mean absolute difference of two mel spectrograms of 80 bands, in decibels.

    Windows of 25 ms every 10 ms; bands are floored 80 dB below the original's loudest one.
    """
    x, y = _pair(original, decoded)
    size = round(0.025 * sample_rate_hz)
    hop = round(0.010 * sample_rate_hz)
    bands = mel_bands(sample_rate_hz, size, _MELS)
    one, other = (power(s, size, hop) @ bands.T for s in (x, y))
    floor = max(float(one.max(initial=0.0)), 1e-20) * 10.0 ** (-_FLOOR_DB / 10.0)
    difference = np.log10(np.maximum(one, floor)) - np.log10(np.maximum(other, floor))
    return float(10.0 * np.abs(difference).mean())


def stft_distance(original: Audio, decoded: Audio) -> float:
    """Return the multi-resolution STFT distance (Yamamoto et al., ICASSP 2020).

    Spectral convergence plus the mean absolute difference of log magnitudes, averaged over windows
    of 512, 1024 and 2048 samples. 0 for equal sounds; has no unit.
    """
    x, y = _pair(original, decoded)
    total = 0.0
    for size, hop in _RESOLUTIONS:
        one, other = (np.sqrt(power(s, size, hop)) for s in (x, y))
        scale = max(float(np.linalg.norm(one)), 1e-12)
        floor = max(float(one.max(initial=0.0)), 1e-10) * 10.0 ** (-_FLOOR_DB / 20.0)
        logs = np.log(np.maximum(one, floor)) - np.log(np.maximum(other, floor))
        total += float(np.linalg.norm(one - other)) / scale + float(np.abs(logs).mean())
    return total / len(_RESOLUTIONS)


def aligned(original: Audio, decoded: Audio, most: int) -> tuple[Audio, Audio]:
    """Shift the decoded sound by up to `most` samples to where it correlates best; cut both.

    A codec that is exact to the sample stays where it is; peers may lag by their look-ahead.
    """
    count = min(len(original), len(decoded))
    if not count:
        return original[:0], decoded[:0]
    size = 1 << int(np.ceil(np.log2(len(original) + len(decoded))))
    spectrum = np.fft.rfft(decoded, size) * np.conj(np.fft.rfft(original, size))
    correlation = np.fft.irfft(spectrum, size)
    lags = np.concatenate((np.arange(most + 1), np.arange(-most, 0)))
    lag = int(lags[int(np.argmax(correlation[lags]))])
    one = original[max(0, -lag) :]
    other = decoded[max(0, lag) :]
    count = min(len(one), len(other))
    return one[:count], other[:count]


def mel_bands(sample_rate_hz: int, size: int, bands: int, *, slaney: bool = False) -> Floats:
    """Return (bands, size // 2 + 1) triangular filters from 0 Hz to half the rate.

    Args:
        sample_rate_hz: Samples per second.
        size: Window length in samples.
        bands: How many filters.
        slaney: The scale that is linear up to 1 kHz, with filters of equal area (Auditory Toolbox),
            instead of the HTK scale with filters of equal height.
    """
    top = sample_rate_hz / 2.0
    if slaney:
        edges = _from_slaney(np.linspace(0.0, float(_to_slaney(np.array([top]))[0]), bands + 2))
    else:
        most = 2595.0 * np.log10(1.0 + top / 700.0)
        edges = 700.0 * (10.0 ** (np.linspace(0.0, most, bands + 2) / 2595.0) - 1.0)
    hertz = np.linspace(0.0, top, size // 2 + 1)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (hertz - low) / (middle - low), (high - hertz) / (high - middle)
    filters: Floats = np.maximum(0.0, np.minimum(rising, falling))
    return filters * (2.0 / (high - low)) if slaney else filters


@dataclass(frozen=True, slots=True)
class CodebookUse:
    """How one codebook was used.

    Attributes:
        stream: Its stream.
        codebook: Row within the stream.
        size: Entries.
        used: Entries that occurred.
        entropy_bits: Of the distribution of indices: what an ideal entropy coder would need.
        codes: How many were counted.
    """

    stream: str
    codebook: int
    size: int
    used: int
    entropy_bits: float
    codes: int

    @property
    def used_percent(self) -> float:
        """Share of entries that occurred."""
        return 100.0 * self.used / self.size


class CodeCounter:
    """Counts indices over many sounds."""

    def __init__(self, streams: Sequence[CodeStream]) -> None:
        self._streams = tuple(streams)
        self._counts = {s.name: np.zeros((s.codebooks, s.size), np.int64) for s in streams}

    def add(self, codes: Mapping[str, npt.NDArray[np.int64]]) -> None:
        """Take int64 (codebooks, n) codes of every stream."""
        for stream in self._streams:
            for k, values in enumerate(codes[stream.name]):
                self._counts[stream.name][k] += np.bincount(values, minlength=stream.size)

    def use(self) -> tuple[CodebookUse, ...]:
        """Return the use of every codebook so far."""
        found = []
        for stream in self._streams:
            for k, row in enumerate(self._counts[stream.name]):
                found.append(
                    CodebookUse(
                        stream.name, k, stream.size, int((row > 0).sum()), entropy_bits(row),
                        int(row.sum()),
                    )
                )  # fmt: skip
        return tuple(found)

    def entropy_per_second(self, frames_per_second: float) -> float:
        """Return bits per second of an ideal coder of single indices."""
        bits = iter(self.use())
        return sum(
            next(bits).entropy_bits * frames_per_second / stream.stride
            for stream in self._streams
            for _ in range(stream.codebooks)
        )


def entropy_bits(counts: npt.NDArray[np.int64]) -> float:
    """Return the Shannon entropy of a histogram; 0 when it is empty.

    >>> entropy_bits(np.array([5, 5, 5, 5, 0]))
    2.0
    """
    total = int(counts.sum())
    if not total:
        return 0.0
    shares = counts[counts > 0] / total
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def _pair(original: Audio, decoded: Audio) -> tuple[Floats, Floats]:
    if original.shape != decoded.shape or original.ndim != 1:
        raise TensorError(
            f"Got sounds of {original.shape} and {decoded.shape}; expected (T,) of one length."
        )
    return original.astype(np.float64), decoded.astype(np.float64)


def power(sound: Floats, size: int, hop: int) -> Floats:
    """Return (frames, size // 2 + 1) power under a Hann window; short sounds get one frame."""
    if len(sound) < size:
        sound = np.pad(sound, (0, size - len(sound)))
    frames = np.lib.stride_tricks.sliding_window_view(sound, size)[::hop]
    spectrum: Floats = np.abs(np.fft.rfft(frames * np.hanning(size + 1)[:-1], axis=1)) ** 2
    return spectrum


def _to_slaney(hertz: Floats) -> Floats:
    upper = 15.0 + 27.0 * np.log(np.maximum(hertz, 1e-9) / 1000.0) / np.log(6.4)
    return np.where(hertz < 1000.0, 3.0 * hertz / 200.0, upper)


def _from_slaney(mel: Floats) -> Floats:
    return np.where(mel < 15.0, 200.0 * mel / 3.0, 1000.0 * np.exp((mel - 15.0) * np.log(6.4) / 27))
