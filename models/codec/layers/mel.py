"""Log-mel features as constant matrices, so that they can stand inside a deployed graph.

`LogMel` in its default setting is SpeechBrain's `Fbank`, on which its ECAPA-TDNN was trained: 25 ms
periodic Hamming window, 10 ms hop, centred with zeros, power spectrum, triangular HTK-mel filters
(both slopes as wide as the left band), 10 log10 with a floor 80 dB below the utterance's maximum.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_FLOOR = 1e-10
_RANGE_DB = 80.0


class LogMel(nn.Module):
    """Samples -> log-mel frames in dB.

    Args:
        sample_rate_hz: Samples per second.
        size: Window and FFT length in samples.
        hop: Samples per frame.
        bands: Mel filters from 0 Hz to half the sample rate.
    """

    basis: Tensor
    filters: Tensor

    def __init__(
        self, sample_rate_hz: int = 16000, size: int = 400, hop: int = 160, bands: int = 80
    ) -> None:
        super().__init__()
        self.size, self.hop = size, hop
        self.register_buffer("basis", dft_kernel(size), persistent=False)
        self.register_buffer("filters", mel_filters(sample_rate_hz, size, bands), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """Map (B, T) samples to (B, 1 + T // hop, bands) in dB."""
        padded = functional.pad(audio, (self.size // 2, self.size // 2)).unsqueeze(1)
        real, imaginary = functional.conv1d(padded, self.basis, stride=self.hop).chunk(2, dim=1)
        power = (real.pow(2) + imaginary.pow(2)).transpose(1, 2)
        mel = torch.matmul(power, self.filters)
        level = 10.0 * torch.log10(mel.clamp(min=_FLOOR))
        return torch.maximum(level, level.amax(dim=(1, 2), keepdim=True) - _RANGE_DB)


def centred(features: Tensor) -> Tensor:
    """Subtract the mean over time of (B, frames, bands): what ECAPA-TDNN takes."""
    return features - features.mean(dim=1, keepdim=True)


def dft_kernel(size: int) -> Tensor:
    """Return (size + 2, 1, size) float32: windowed cosines, then windowed negative sines."""
    bins = torch.arange(size // 2 + 1, dtype=torch.float64)
    samples = torch.arange(size, dtype=torch.float64)
    angle = 2.0 * math.pi / size * torch.remainder(bins[:, None] * samples, size)
    window = torch.hamming_window(size, periodic=True, dtype=torch.float64)
    return (torch.cat((angle.cos(), -angle.sin())) * window).float().unsqueeze(1)


def mel_filters(sample_rate_hz: int, size: int, bands: int) -> Tensor:
    """Return the (size // 2 + 1, bands) float32 filter bank."""
    top = 2595.0 * math.log10(1.0 + sample_rate_hz / 2.0 / 700.0)
    # float32 throughout, as published: the filters' own rounding is part of what was trained on.
    hertz = 700.0 * (10.0 ** (torch.linspace(0.0, top, bands + 2) / 2595.0) - 1.0)
    width, centre = (hertz[1:] - hertz[:-1])[:-1], hertz[1:-1]
    bins = torch.linspace(0.0, sample_rate_hz / 2.0, size // 2 + 1)
    slope = (bins[:, None] - centre) / width
    return torch.minimum(slope + 1.0, 1.0 - slope).clamp(min=0.0)
