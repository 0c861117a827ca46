"""Start EViTPose so that it learns from few samples on a small machine.

Three data-free steps replace what an MAE-pretrained backbone would bring:

* patch filters are the lowest-frequency cosines of a 16x16 tile, brightness and two colour
  differences, scaled on real pictures towards equal variance, and then frozen: pixels of a patch
  are so alike that Adam's steps, equal for every weight, would soon leave nothing but its mean
  (Chen et al., "An Empirical Study of Training Self-Supervised Vision Transformers", ICCV 2021,
  freeze them for stability too);
* position codes are 2-D sines and cosines;
* query/key and value/projection products start near the identity ("mimetic" initialisation;
  Trockman and Kolter, "Mimetic Initialization of Self-Attention Layers", ICML 2023), so that
  attention begins local.
"""

from __future__ import annotations

import math

import torch
from torch import nn

_TILE = 16
_COLOURS = ((0.577, 0.577, 0.577), (0.707, 0.0, -0.707), (0.408, -0.816, 0.408))
_COLOUR_SHARE = 0.2


def cosine_filters(count: int) -> torch.Tensor:
    """Return ``count`` patch filters (count,3,16,16) in order of frequency, colours mixed."""
    axis = (torch.arange(_TILE) + 0.5) * math.pi / _TILE
    waves = torch.stack([torch.cos(axis * k) for k in range(_TILE)])
    order = sorted(
        ((u, v) for u in range(_TILE) for v in range(_TILE)),
        key=lambda f: (f[0] ** 2 + f[1] ** 2, f),
    )
    filters = []
    each = round(_COLOUR_SHARE * count)
    for colour, number in zip(_COLOURS, (count - 2 * each, each, each), strict=True):
        for u, v in order[:number]:
            pattern = torch.outer(waves[u], waves[v])
            pattern = pattern / pattern.norm() * (1 + math.hypot(u, v)) / _TILE
            filters.append(torch.tensor(colour)[:, None, None] * pattern)
    if len(filters) < count:  # wider networks: more channels than a tile has frequencies
        filters.append(torch.randn(count - len(filters), 3, _TILE, _TILE) * 0.02)
        return torch.cat([torch.stack(filters[:-1]), filters[-1]])
    return torch.stack(filters)


def level_patches(patch_embed: nn.Conv2d, images: torch.Tensor, flatness: float = 0.6) -> None:
    """Scale and centre frozen patch filters on sample pictures.

    Args:
        patch_embed: The convolution, changed in place.
        images: Normalised pictures (B,3,H,W).
        flatness: 0 keeps the pictures' spectrum, 1 makes every channel's variance equal.
    """
    with torch.no_grad():
        found = patch_embed(images)
        spread = found.std((0, 2, 3)).clamp(min=1e-4)
        wanted = 0.8 * (spread / spread.max()) ** (1 - flatness)
        scale = wanted / spread
        centre = found.mean((0, 2, 3))
        patch_embed.weight.mul_(scale[:, None, None, None])
        if patch_embed.bias is not None:
            patch_embed.bias.copy_((patch_embed.bias - centre) * scale)


def sine_positions(rows: int, cols: int, channels: int) -> torch.Tensor:
    """Return 2-D sine/cosine codes (rows*cols, channels): half for the row, half for the column."""
    per_axis = channels // 4
    rates = torch.exp(torch.arange(per_axis) / per_axis * -math.log(100.0)) * 2 * math.pi
    y = (torch.arange(rows) + 0.5) / rows * 4
    x = (torch.arange(cols) + 0.5) / cols * 3
    down = torch.cat([torch.sin(y[:, None] * rates), torch.cos(y[:, None] * rates)], 1)
    across = torch.cat([torch.sin(x[:, None] * rates), torch.cos(x[:, None] * rates)], 1)
    grid = torch.cat([down[:, None].expand(rows, cols, -1), across[None].expand(rows, cols, -1)], 2)
    return grid.reshape(rows * cols, 4 * per_axis)


def _factor(matrix: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Split a (D,D) matrix into (D,rank) factors whose product is its best low-rank copy."""
    u, s, vt = torch.linalg.svd(matrix)
    root = s[:rank].sqrt()
    return u[:, :rank] * root, vt[:rank].T * root


def mimic_attention(qkv: nn.Linear, projection: nn.Linear, heads: int) -> None:
    """Set one attention layer's weights near the mimetic structure (D = heads x rank)."""
    dim = qkv.in_features
    rank = dim // heads
    with torch.no_grad():
        for head in range(heads):
            rows = slice(head * rank, (head + 1) * rank)
            noise = torch.randn(dim, dim) / math.sqrt(dim)
            query, key = _factor(0.7 * noise + 0.7 * torch.eye(dim), rank)
            qkv.weight[:dim][rows] = query.T
            qkv.weight[dim : 2 * dim][rows] = key.T
        noise = torch.randn(dim, dim) / math.sqrt(dim)
        out, value = _factor(0.4 * noise - 0.4 * torch.eye(dim), dim)
        projection.weight.copy_(out)
        qkv.weight[2 * dim :] = value.T
        qkv.bias.zero_()
        projection.bias.zero_()
