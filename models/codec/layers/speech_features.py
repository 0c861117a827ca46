"""What a speech encoder looks at: log-mel levels and an autocorrelation, by constant matrices."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.models.codec.layers.istft import forward_kernel
from prunus.models.codec.layers.mel import mel_filters

_FLOOR = 1e-5
_CENTRE, _SPREAD = -5.0, 3.0  # of log-mel levels of speech: features of usual size


class MelLevels(nn.Module):
    """Samples -> log-mel magnitudes of frames without padding.

    Args:
        sample_rate_hz: Samples per second.
        size: Window in samples.
        hop: Samples per frame.
        bands: Mel filters.
    """

    basis: Tensor
    filters: Tensor

    def __init__(self, sample_rate_hz: int, size: int, hop: int, bands: int) -> None:
        super().__init__()
        self.hop = hop
        self.register_buffer("basis", forward_kernel(size), persistent=False)
        filters = mel_filters(sample_rate_hz, size, bands)
        # The narrowest triangles fall between two bins; every band gets its nearest bin at least.
        centres = _mel_centres(sample_rate_hz, bands) / (sample_rate_hz / size)
        nearest = centres.round().long().clamp(max=size // 2)
        filters[nearest, torch.arange(bands)] += 1e-2
        filters = filters / filters.sum(dim=0)
        # Constants that float16 holds: half the bytes in a file, the same features.
        self.register_buffer("filters", filters.half().float(), persistent=False)

    def forward(self, sound: Tensor) -> Tensor:
        """Map (B, T) to (B, bands, 1 + (T - size) // hop), about -2 to 2."""
        real, imaginary = functional.conv1d(sound.unsqueeze(1), self.basis, stride=self.hop).chunk(
            2, dim=1
        )
        magnitude = torch.sqrt(real.pow(2) + imaginary.pow(2)).transpose(1, 2)
        level = torch.log(torch.matmul(magnitude, self.filters) + _FLOOR)
        return ((level - _CENTRE) / _SPREAD).transpose(1, 2)


class Autocorrelation(nn.Module):
    """Samples -> autocorrelation of a flattened spectrum at the given periods.

    The transform of |X| instead of |X|^2 keeps formants from hiding the pitch (generalised
    autocorrelation; Tolonen & Karjalainen, 2000).

    Args:
        size: Window in samples.
        hop: Samples per frame.
        periods: (P,) periods in samples, fractions allowed.
    """

    basis: Tensor
    cosines: Tensor

    def __init__(self, size: int, hop: int, periods: Tensor) -> None:
        super().__init__()
        self.hop = hop
        self.register_buffer("basis", forward_kernel(size), persistent=False)
        bins = torch.arange(size // 2 + 1, dtype=torch.float64)
        angle = 2.0 * math.pi / size * bins[:, None] * periods.double()[None]
        self.register_buffer("cosines", angle.cos().half().float(), persistent=False)

    def forward(self, sound: Tensor) -> Tensor:
        """Map (B, T) to (B, P, 1 + (T - size) // hop) in [-1, 1]."""
        real, imaginary = functional.conv1d(sound.unsqueeze(1), self.basis, stride=self.hop).chunk(
            2, dim=1
        )
        magnitude = torch.sqrt(real.pow(2) + imaginary.pow(2)).transpose(1, 2)
        total = magnitude.sum(dim=2, keepdim=True) + 1e-3
        return (torch.matmul(magnitude, self.cosines) / total).transpose(1, 2)


def _mel_centres(sample_rate_hz: int, bands: int) -> Tensor:
    top = 2595.0 * math.log10(1.0 + sample_rate_hz / 2.0 / 700.0)
    mel = torch.linspace(0.0, top, bands + 2)[1:-1]
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
