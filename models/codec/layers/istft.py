"""Inverse short-time Fourier transform as two transposed convolutions with constant kernels.

TensorRT has no DFT and no Col2Im; a transposed convolution does inverse DFT, window and overlap-add
in one. Row k of the cosine half is w[n] c_k cos(2 pi k n / N), of the sine half -w[n] c_k
sin(2 pi k n / N), with c = 1/N at DC and Nyquist and 2/N between (a real signal has each other bin
twice); the sine rows of DC and Nyquist vanish.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class InverseStft(nn.Module):
    """Frames of a spectrum -> samples, cropped so that L frames give L * hop samples.

    Args:
        size: FFT and window length in samples.
        hop: Samples per frame.
    """

    window: Tensor
    kernel: Tensor
    power: Tensor

    def __init__(self, size: int, hop: int) -> None:
        super().__init__()
        self.size, self.hop = size, hop
        window = torch.hann_window(size)
        self.register_buffer("window", window)  # in published state dicts; otherwise unused
        self.register_buffer("kernel", inverse_kernel(size), persistent=False)
        self.register_buffer("power", _window(size).pow(2).float().view(1, 1, size), False)

    def forward(self, spectrum: Tensor, valid: Tensor | None = None) -> Tensor:
        """Invert.

        Args:
            spectrum: (B, size + 2, L) real parts of all bins, then imaginary parts.
            valid: (B, 1, L) of ones, and zeros where a frame does not count; None: all count.

        Returns:
            (B, L * hop) samples, divided by the overlapped squared windows of the frames.
        """
        if valid is None:
            valid = torch.ones_like(spectrum[:, :1])
        cut = (self.size - self.hop) // 2
        samples = functional.conv_transpose1d(spectrum * valid, self.kernel, stride=self.hop)
        envelope = functional.conv_transpose1d(valid, self.power, stride=self.hop)
        length = spectrum.shape[-1] * self.hop
        samples = samples[..., cut : cut + length]
        # Below this only where no valid frame reaches: what comes out there is cut off by callers.
        envelope = envelope[..., cut : cut + length].clamp(min=1e-3)
        return (samples / envelope).squeeze(1)


def inverse_kernel(size: int) -> Tensor:
    """Return the (size + 2, 1, size) float32 kernel, computed in float64."""
    bins = torch.arange(size // 2 + 1, dtype=torch.float64)
    samples = torch.arange(size, dtype=torch.float64)
    # Reduced modulo the period first: large angles would lose digits.
    angle = 2.0 * math.pi / size * torch.remainder(bins[:, None] * samples, size)
    weight = torch.full((size // 2 + 1, 1), 2.0 / size, dtype=torch.float64)
    weight[0] = weight[-1] = 1.0 / size
    sines = -weight * angle.sin()
    sines[0] = sines[-1] = 0.0
    rows = torch.cat((weight * angle.cos(), sines)) * _window(size)
    return rows.float().unsqueeze(1)


def forward_kernel(size: int) -> Tensor:
    """Return (size + 2, 1, size) float32: Hann-windowed cosines, then negative sines.

    A convolution with it gives what `inverse_kernel` takes.
    """
    bins = torch.arange(size // 2 + 1, dtype=torch.float64)
    samples = torch.arange(size, dtype=torch.float64)
    angle = 2.0 * math.pi / size * torch.remainder(bins[:, None] * samples, size)
    return (torch.cat((angle.cos(), -angle.sin())) * _window(size)).float().unsqueeze(1)


def _window(size: int) -> Tensor:
    return torch.hann_window(size, periodic=True, dtype=torch.float64)
