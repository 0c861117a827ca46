"""Heat diffusion over time: the learned low-pass of Dolphin's local attention, in two exact forms.

Dolphin (arXiv 2509.23610), after vHeat (arXiv 2405.16555): transform a channel to cosine
frequencies w = m pi / T, multiply by exp(-k w^2), transform back. With the orthonormal DCT-II as a
matrix that costs 2 T^2 multiply-accumulates per channel and a T x T table.

What differs: the operator is linear and its basis is the one of a signal mirrored at both ends
(edge sample repeated), so it *is* a convolution of the mirrored signal with the even kernel

    h[d] = 1/pi * integral_0^pi exp(-k w^2) cos(w d) dw,

for any T and without a table. Cutting the kernel at a radius R is the only approximation;
`gain_error` says by how much any signal can be changed by that.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from prunus.models.separation.channels_first import filter_channels

_NODES = 512  # Gauss-Legendre nodes: exact to rounding for radii up to 256


@lru_cache(maxsize=8)
def _quadrature(radius: int) -> tuple[Tensor, Tensor]:
    """Return w^2 (nodes,) and weight * cos(w d) / pi (nodes, radius + 1), float64."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    w = (nodes + 1) * (math.pi / 2)
    basis = np.cos(np.outer(w, np.arange(radius + 1))) * (weights / 2)[:, None]
    return torch.from_numpy(w * w), torch.from_numpy(basis)


def heat_kernel(k: Tensor, radius: int) -> Tensor:
    """Return the filters of a heat operator, differentiable in `k`.

    Args:
        k: (C,) diffusion exponents, at least 0.
        radius: Taps on each side.

    Returns:
        (C, 1, 2 radius + 1), computed in float64 and rounded to the dtype of `k`.
    """
    squares, basis = _quadrature(radius)
    squares, basis = squares.to(k.device), basis.to(k.device)
    half = torch.exp(-k.double().unsqueeze(1) * squares) @ basis
    return torch.cat((half[:, 1:].flip(1), half), dim=1).unsqueeze(1).to(k.dtype)


def gain_error(k: Tensor, radius: int, points: int = 4097) -> float:
    """Return the largest gain by which the cut filter differs from the operator.

    It bounds the rms error of the output relative to the rms of any input signal. The worst
    frequency is looked for on a grid of `points` from 0 to pi.
    """
    kernel = heat_kernel(k.detach().double(), radius)[:, 0, radius:]
    w = torch.linspace(0, math.pi, points, dtype=torch.float64)
    cosines = torch.cos(w[None] * torch.arange(radius + 1, dtype=torch.float64)[:, None])
    cosines[1:] *= 2
    exact = torch.exp(-k.detach().double()[:, None] * w[None] ** 2)
    return float((kernel @ cosines - exact).abs().max())


def mirror_index(length: int, radius: int) -> Tensor:
    """Return (length + 2 radius,) int64: where each sample of the mirrored signal comes from.

    The signal continues ``x1 x0 | x0 x1 ... | x[T-1] x[T-2]``, with period 2T.
    """
    positions = torch.arange(-radius, length + radius) % (2 * length)
    return torch.where(positions < length, positions, 2 * length - 1 - positions)


def heat_filter(x: Tensor, kernel: Tensor, *, plane: bool = False) -> Tensor:
    """Diffuse (B, C, T) with the filters (C, 1, 2R + 1) of `heat_kernel`.

    Args:
        x: Maps.
        kernel: Filters.
        plane: See `filter_channels`.
    """
    return filter_channels(mirror(x, kernel.shape[-1] // 2), kernel, plane=plane)


def mirror(x: Tensor, radius: int) -> Tensor:
    """Continue (B, C, T) by `radius` mirrored samples at both ends."""
    length = x.shape[-1]
    if radius > length:
        return x.index_select(2, mirror_index(length, radius).to(x.device))
    # Flipped ends: gathering sample by sample is many times slower in exported graphs.
    return torch.cat((x[..., :radius].flip(2), x, x[..., length - radius :].flip(2)), dim=2)


def cosine_table(length: int) -> Tensor:
    """Return the orthonormal DCT-II (frequency m, sample t), (T, T) float64."""
    m = torch.arange(length, dtype=torch.float64)[:, None]
    t = torch.arange(length, dtype=torch.float64)[None]
    # The argument is reduced in whole numbers first: cos of large angles is inexact.
    turns = (m * (2 * t + 1)) % (4 * length)
    table = torch.cos(turns * (math.pi / (2 * length))) * math.sqrt(2 / length)
    table[0] /= math.sqrt(2)
    return table


def heat_dense(x: Tensor, k: Tensor, table: Tensor) -> Tensor:
    """Diffuse (B, C, T) by two matrix products with the (T, T) table of `cosine_table`."""
    length = x.shape[-1]
    w = torch.arange(length, dtype=torch.float64, device=x.device) * (math.pi / length)
    gain = torch.exp(-k.double()[:, None] * w[None] ** 2).to(x.dtype)
    table = table.to(x.dtype)
    return torch.matmul(torch.matmul(x, table.transpose(0, 1)) * gain, table)
