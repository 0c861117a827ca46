"""Mix-shift block of MS-MLP (arXiv 2202.06510, section 3): shifted channels, no attention.

The channels are cut into five groups, rolled by -2..2 along the width, and convolved depthwise with
kernels that grow with the group; the same again along the height. Both are added.

    lr_g = DWConv_g(roll(x_g, d_g, width)),   td_g = DWConv'_g(roll(x_g, d_g, height))
    x    = x + gamma * PW2(GELU(PW1(LN(concat(lr) + concat(td)))))

The roll is circular, the convolutions pad with zeros after it: no shifted kernel does the same.
Parameter names are the published ones (`dwconv_lr.{g}`, `dwconv_td.{g}`, `norm`, `pwconv1`,
`pwconv2`, `gamma`).

What differs: `merged` runs each direction's five convolutions as one, whose kernels are the five
padded with zeros to the largest; exact, fewer and larger nodes.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.runtime.errors import UsageError

SHIFTS = (-2, -1, 0, 1, 2)
# Kernel sides of the groups, per stage.
KERNELS = ((1, 1, 3, 5, 7), (1, 3, 3, 5, 7), (1, 5, 5, 5, 7), (1, 7, 7, 7, 7))


class MixShiftBlock(nn.Module):
    """The block.

    Args:
        dim: Channels; five groups of ceil(dim / 5), the last one smaller.
        hidden: Width of the two pointwise layers.
        kernels: Odd kernel sides of the five groups.
        merged: One convolution per direction; False: five, as published.

    Raises:
        UsageError: the channels do not fill five groups, or kernels that are not five odd numbers.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        kernels: tuple[int, ...] = KERNELS[0],
        *,
        merged: bool = False,
    ) -> None:
        super().__init__()
        step = -(-dim // len(SHIFTS))
        widths = [min(step, dim - start) for start in range(0, dim, step)]
        if len(widths) != len(SHIFTS):
            raise UsageError(
                f"{dim} channels make {len(widths)} groups of {step}; expected {len(SHIFTS)}.",
                "Choose a multiple of 5, or 17 channels or more.",
            )
        if len(kernels) != len(SHIFTS) or any(k < 1 or k % 2 == 0 for k in kernels):
            raise UsageError(f"Got kernels {list(kernels)}; expected five odd sides.")
        self.widths, self.merged = widths, merged
        self.dwconv_lr = _convolutions(widths, kernels)
        self.dwconv_td = _convolutions(widths, kernels)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, hidden)
        self.pwconv2 = nn.Linear(hidden, dim)
        self.gamma = nn.Parameter(torch.full((dim,), 1e-6))

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, C, H, W) float to the same shape."""
        mixed = self._direction(image, self.dwconv_lr, 3) + self._direction(
            image, self.dwconv_td, 2
        )
        hidden = functional.gelu(self.pwconv1(self.norm(mixed.permute(0, 2, 3, 1))))
        out: Tensor = image + (self.gamma * self.pwconv2(hidden)).permute(0, 3, 1, 2)
        return out

    def _direction(self, image: Tensor, layers: nn.ModuleList, axis: int) -> Tensor:
        convs = cast("list[nn.Conv2d]", list(layers))
        groups = image.split(self.widths, dim=1)
        rolled = [_roll(g, d, axis) for g, d in zip(groups, SHIFTS, strict=True)]
        if not self.merged:
            return torch.cat([c(g) for c, g in zip(convs, rolled, strict=True)], dim=1)
        side = max(conv.weight.shape[-1] for conv in convs)
        weights = [_grown(conv.weight, side) for conv in convs]
        bias = torch.cat([cast(Tensor, conv.bias) for conv in convs])
        return functional.conv2d(
            torch.cat(rolled, dim=1), torch.cat(weights), bias, padding=side // 2,
            groups=image.shape[1],
        )  # fmt: skip


def _convolutions(widths: list[int], kernels: tuple[int, ...]) -> nn.ModuleList:
    return nn.ModuleList(
        nn.Conv2d(w, w, k, padding=k // 2, groups=w) for w, k in zip(widths, kernels, strict=True)
    )


def _grown(kernel: Tensor, side: int) -> Tensor:
    """Return kernels (C, 1, k, k) with a border of zeros, (C, 1, side, side)."""
    border = (side - kernel.shape[-1]) // 2
    return functional.pad(kernel, (border, border, border, border))


def _roll(image: Tensor, shift: int, axis: int) -> Tensor:
    """Return the map rolled forwards by `shift`: two slices and a concatenation."""
    length = image.shape[axis]
    cut = -shift % length
    if cut == 0:
        return image
    first, second = image.split([cut, length - cut], dim=axis)
    return torch.cat((second, first), dim=axis)
