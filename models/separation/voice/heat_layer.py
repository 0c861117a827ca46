"""The heat layer of Dolphin: short convolutions around heat diffusion, gated (arXiv 2509.23610).

    x, z = split(conv3(dw3(input)))     diffuse x     out = dw3(LN(x) * SiLU(z))

What differs: the diffusion is a short filter by default, see `heat`; the stored projection
``to_k``, which no released computation reads, is kept for the checkpoint's sake only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.models.separation.channels_first import ChannelNorm, depthwise
from prunus.models.separation.config import Heat
from prunus.models.separation.voice.heat import (
    cosine_table,
    gain_error,
    heat_dense,
    heat_filter,
    heat_kernel,
)


class HeatLayer(nn.Module):
    """(B, C, T) -> (B, C, T)."""

    frozen: Tensor | None

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.form: Heat = "filter"
        self.radius = 32
        self.plane = False
        self.k = nn.Parameter(torch.ones(channels))
        self.dwconv = depthwise(channels, 3)
        self.linear = depthwise(channels, 3, outputs=2)
        self.out_norm = ChannelNorm(channels)
        self.out_linear = depthwise(channels, 3)
        self.to_k = nn.Sequential(depthwise(channels, 3))  # in the checkpoint, never computed
        self.register_buffer("frozen", None, persistent=False)
        self._tables: dict[int, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Mix along time with a learned spread per channel."""
        # Group c yields outputs 2c and 2c + 1, but the halves are cut straight through: the
        # released weights were trained with that.
        warm, gate = self.linear(self.dwconv(x)).chunk(2, dim=1)
        mixed = self.out_norm(self.diffuse(warm)) * functional.silu(gate)
        out: Tensor = self.out_linear(mixed)
        return out

    def diffuse(self, x: Tensor) -> Tensor:
        """Apply the heat operator to (B, C, T) in the form that was set."""
        if self.frozen is not None:
            return heat_filter(x, self.frozen, plane=self.plane)
        if self.form == "filter":
            kernel = heat_kernel(self.k, self.radius).to(x.dtype)
            return heat_filter(x, kernel, plane=self.plane)
        length = x.shape[-1]
        # One table per layer and length, in the working format: what the released code holds too.
        if length not in self._tables or self._tables[length].dtype != x.dtype:
            self._tables[length] = cosine_table(length).to(x.dtype).to(x.device)
        return heat_dense(x, self.k, self._tables[length])


def set_heat(network: nn.Module, form: Heat, radius: int) -> None:
    """Choose how all heat layers of a network compute; forget tables and frozen filters."""
    for module in heat_layers(network):
        module.form, module.radius, module.frozen = form, radius, None
        module._tables.clear()


def freeze_heat(network: nn.Module) -> None:
    """Turn the filters of all heat layers into constants: inference need not derive them anew."""
    for module in heat_layers(network):
        if module.form == "filter":
            module.frozen = heat_kernel(module.k.detach(), module.radius)


def heat_layers(network: nn.Module) -> list[HeatLayer]:
    """Return the heat layers of a network."""
    return [module for module in network.modules() if isinstance(module, HeatLayer)]


def network_gain_error(network: nn.Module, radius: int) -> float:
    """Return the largest `gain_error` of any heat layer at that radius."""
    return max((gain_error(layer.k, radius) for layer in heat_layers(network)), default=0.0)
