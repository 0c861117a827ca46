"""Weight-normalised 1-D convolutions under their published names, and folding them away.

Weight normalisation (Salimans & Kingma, arXiv 1602.07868): w = g * v / |v|, the norm over all axes
but the first. Codec checkpoints store ``weight_g`` and ``weight_v``; a deployed graph holds ``w``.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

_Conv = TypeVar("_Conv", nn.Conv1d, nn.ConvTranspose1d)


class NormedConv1d(nn.Module):
    """A convolution with the parameters ``weight_g`` (out, 1, 1), ``weight_v`` and ``bias``.

    Args:
        inputs: Channels that enter.
        outputs: Channels that leave.
        kernel: Taps.
        stride: Step in samples.
        dilation: Distance of the taps.
        padding: Zeros on both sides.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        padding: int = 0,
    ) -> None:
        super().__init__()
        plain = nn.Conv1d(inputs, outputs, kernel)
        self.kernel, self.stride, self.dilation, self.padding = kernel, stride, dilation, padding
        self.weight_v = nn.Parameter(plain.weight.detach().clone())
        self.weight_g = nn.Parameter(_norm(self.weight_v.detach()))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, T) to (B, outputs, T')."""
        weight = self.weight_g * self.weight_v / _norm(self.weight_v)
        return functional.conv1d(
            x, weight, self.bias, self.stride, self.padding, dilation=self.dilation
        )

    def folded(self) -> nn.Conv1d:
        """Return the plain convolution that computes the same."""
        outputs, inputs, kernel = self.weight_v.shape
        plain = nn.Conv1d(
            inputs, outputs, kernel, self.stride, self.padding, dilation=self.dilation
        )
        return _filled(plain, self.weight_g, self.weight_v, self.bias)


class NormedConvTranspose1d(nn.Module):
    """A transposed convolution with ``weight_g`` (in, 1, 1), ``weight_v`` and ``bias``."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int) -> None:
        super().__init__()
        plain = nn.ConvTranspose1d(inputs, outputs, kernel, stride)
        self.kernel, self.stride = kernel, stride
        self.weight_v = nn.Parameter(plain.weight.detach().clone())
        self.weight_g = nn.Parameter(_norm(self.weight_v.detach()))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, T) to (B, outputs, (T - 1) * stride + kernel)."""
        weight = self.weight_g * self.weight_v / _norm(self.weight_v)
        return functional.conv_transpose1d(x, weight, self.bias, self.stride)

    def folded(self) -> nn.ConvTranspose1d:
        """Return the plain transposed convolution that computes the same."""
        inputs, outputs, kernel = self.weight_v.shape
        plain = nn.ConvTranspose1d(inputs, outputs, kernel, self.stride)
        return _filled(plain, self.weight_g, self.weight_v, self.bias)


def fold_weight_norm(network: nn.Module) -> nn.Module:
    """Replace every normalised convolution inside by a plain one, in place; return the network.

    State dict names change with it: ``weight_g`` and ``weight_v`` become ``weight``.
    """
    for name, child in network.named_children():
        if isinstance(child, NormedConv1d | NormedConvTranspose1d):
            setattr(network, name, child.folded().train(child.training))
        else:
            fold_weight_norm(child)
    return network


def _norm(v: Tensor) -> Tensor:
    norms: Tensor = v.flatten(1).norm(dim=1)
    return norms.view(-1, 1, 1)


def _filled(plain: _Conv, g: Tensor, v: Tensor, bias: Tensor) -> _Conv:
    # float64, so that the folded weight is rounded once only.
    wide = v.detach().double()
    state = {
        "weight": (g.detach().double() * wide / _norm(wide)).to(v.dtype),
        "bias": bias.detach().clone(),
    }
    plain.load_state_dict(state, assign=True)
    return plain
