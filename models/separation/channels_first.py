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


def depthwise(channels: int, kernel: int, stride: int = 1, *, outputs: int = 1) -> nn.Conv1d:
    """Return a convolution along time per channel, zero-padded to the same length."""
    return nn.Conv1d(
        channels, channels * outputs, kernel, stride, padding=(kernel - 1) // 2, groups=channels
    )


def glu(x: Tensor) -> Tensor:
    """Return the first half of the channels times the sigmoid of the second, (B, C/2, T)."""
    return functional.glu(x, dim=1)
