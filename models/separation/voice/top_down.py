"""Top-down attention: a coarse map gates a fine one and is added to it (TDANet, arXiv 2209.15200).

N(heat(local)) * up(sigmoid(N(heat(coarse)))) + up(N(heat(coarse)))
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from prunus.models.separation.voice.heat_layer import HeatLayer
from prunus.models.separation.voice.resample import nearest

Norm = Callable[[int], nn.Module]


class HeatNorm(nn.Module):
    """A heat layer and a norm."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.conv = HeatLayer(channels)
        self.norm = norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T) to the same shape."""
        out: Tensor = self.norm(self.conv(x))
        return out


class TopDown(nn.Module):
    """Modulate one map by another."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.local_embedding = HeatNorm(channels, norm)
        self.global_embedding = HeatNorm(channels, norm)
        self.global_act = HeatNorm(channels, norm)

    def forward(self, local: Tensor, coarse: Tensor) -> Tensor:
        """Return (B, C, T): `local` (B, C, T) seen in the light of `coarse` (B, C, S)."""
        length = local.shape[-1]
        gate = torch.sigmoid(self.global_act(coarse))
        added = self.global_embedding(coarse)
        out: Tensor = self.local_embedding(local) * nearest(gate, length) + nearest(added, length)
        return out
