"""Layers over the channels of maps (B, C, T), so that convolutions and they need no transposes.

`GlobalNorm` reduces over time first and over channels second: a single float32 sum over half a
million values, as group norm's kernels do it, loses four digits at one second of audio.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

TINY_EPS = 1e-8  # most one-group norms of Dolphin; the local blocks use 1e-5
# The ONNX exporter's optimiser takes a summand of 1e-8 for zero and drops it: silence would become
# NaN. A power of two changes no digit.
_LIFT = 1024.0


class PointwiseLinear(nn.Linear):
    """A linear layer over the channels of (B, C, T); parameters are those of `nn.Linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T) to (B, D, T)."""
        return functional.conv1d(x, self.weight.unsqueeze(-1), self.bias)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, T)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each time step."""
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class GlobalNorm(nn.Module):
    """Group norm with one group: statistics over channels and time, affine per channel."""

    def __init__(self, channels: int, eps: float = TINY_EPS) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, T) to mean 0 and variance 1 over C and T."""
        centred = x - _mean(x)
        variance = _mean(centred * centred) * _LIFT**2
        scale = self.weight[:, None] * (torch.rsqrt(variance + self.eps * _LIFT**2) * _LIFT)
        return centred * scale + self.bias[:, None]


def _mean(x: Tensor) -> Tensor:
    """Return the mean over time, then over channels, (B, 1, 1).

    Written as a sum and a factor: two means in a row would be merged by graph optimisers.
    """
    return (x.sum(dim=2, keepdim=True) * (1 / x.shape[2])).mean(dim=1, keepdim=True)


class LayerScale(nn.Module):
    """A learned factor per channel in front of a residual sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer_scale = nn.Parameter(torch.full((1, 1, channels), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        """Scale (B, C, T)."""
        return x * self.layer_scale.reshape(1, -1, 1)


class Depthwise(nn.Conv1d):
    """A convolution along time per channel, zero-padded to the same length.

    Attributes:
        plane: Compute it as a 2-D convolution of one row: see `filter_channels`.
    """

    def __init__(self, channels: int, kernel: int, stride: int = 1, outputs: int = 1) -> None:
        padding = (kernel - 1) // 2
        super().__init__(
            channels, channels * outputs, kernel, stride, padding=padding, groups=channels
        )
        self.plane = False

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T) to (B, C * outputs, T / stride)."""
        if not self.plane:
            return super().forward(x)
        return filter_channels(
            x, self.weight, self.bias, self.stride[0], int(self.padding[0]), plane=True
        )


def depthwise(channels: int, kernel: int, stride: int = 1, *, outputs: int = 1) -> Depthwise:
    """Return a convolution along time per channel, zero-padded to the same length."""
    return Depthwise(channels, kernel, stride, outputs)


def filter_channels(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    *,
    plane: bool = False,
) -> Tensor:
    """Convolve each channel of (B, C, T) with its own taps.

    Args:
        x: Maps.
        weight: (D, 1, taps), D a multiple of C.
        bias: (D,).
        stride: Steps between outputs.
        padding: Zeros at both ends.
        plane: As a 2-D convolution of one row. The numbers are the same; for long filters ONNX
            Runtime has vectorised loops in 2-D only, six times as fast at 65 taps.
    """
    groups = x.shape[1]
    if not plane:
        return functional.conv1d(x, weight, bias, stride, padding, groups=groups)
    row = functional.conv2d(
        x.unsqueeze(2), weight.unsqueeze(2), bias, (1, stride), (0, padding), groups=groups
    )
    return row.squeeze(2)


def glu(x: Tensor) -> Tensor:
    """Return the first half of the channels times the sigmoid of the second, (B, C/2, T)."""
    return functional.glu(x, dim=1)
