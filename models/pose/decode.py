"""Sub-pixel decoding of heatmaps: DARK (arXiv 1910.06278, section 3.2) in the unbiased pixel
convention of UDP (arXiv 1911.07524), as ViTPose evaluates.

Differs from the usual implementation: only the 13 x 13 neighbourhood of each maximum is read, and
the nine blurred values that the Taylor step needs are weighted sums of it. The numbers are those of
blurring the whole map with the 11 x 11 Gaussian (reflected borders), at a tenth of the work, and
without a convolution or a matrix product, so that back ends which lower those to bfloat16 keep the
decode in float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BLUR = 11  # taps
SIGMA = 2.0  # heatmap pixels
_RADIUS = BLUR // 2 + 1  # blur radius plus the one-pixel stencil of the derivatives
_FLOOR, _CEILING = 1e-3, 50.0  # clip before the logarithm
_EPSILON = 1.1920929e-07  # float32 epsilon on the Hessian's diagonal, as in UDP's evaluation


def _stencil() -> list[list[float]]:
    """Return 9 rows of 169 weights: row r sums the neighbourhood to the blur at offset r."""
    taps = [math.exp(-((i - BLUR // 2) ** 2) / (2 * SIGMA**2)) for i in range(BLUR)]
    total = sum(taps) ** 2
    side = 2 * _RADIUS + 1
    rows = []
    for dy in (0, 1, 2):
        for dx in (0, 1, 2):
            window = [0.0] * (side * side)
            for y in range(BLUR):
                for x in range(BLUR):
                    window[(y + dy) * side + x + dx] = taps[y] * taps[x] / total
            rows.append(window)
    return rows


_STENCIL = _stencil()


def _reflect(position: Tensor, size: int) -> Tensor:
    """Fold indices outside 0..size-1 back, without repeating the border (reflect-101)."""
    folded = position.abs()
    return (size - 1) - ((size - 1) - folded).abs()


def udp_dark_decode(heatmaps: Tensor) -> Tensor:
    """Return the sub-pixel maximum of each heatmap.

    Args:
        heatmaps: (B, J, H, W), any float type; computed in float32. H and W at least 7.

    Returns:
        (B, J, 3) float32: x in 0..W-1 and y in 0..H-1 heatmap pixels (clamped to the map), and the
        value at the maximum. A flat map gives the position of its first pixel.
    """
    batch, joints, height, width = heatmaps.shape
    flat = heatmaps.float().reshape(batch, joints, height * width)
    score = flat.amax(dim=2)
    best = flat.argmax(dim=2).to(torch.int32)
    row = torch.div(best, width, rounding_mode="floor")
    column = best - row * width

    offsets = torch.arange(-_RADIUS, _RADIUS + 1, dtype=torch.int32, device=heatmaps.device)
    rows = _reflect(row.unsqueeze(-1) + offsets, height)
    columns = _reflect(column.unsqueeze(-1) + offsets, width)
    index = (rows.unsqueeze(-1) * width + columns.unsqueeze(-2)).flatten(2)
    near = torch.gather(flat, 2, index.to(torch.int64))
    weights = torch.tensor(_STENCIL, dtype=torch.float32, device=heatmaps.device)
    blurred = (near.unsqueeze(2) * weights).sum(dim=3)
    logs = blurred.clamp(_FLOOR, _CEILING).log()
    x, y = _taylor_step(logs, row, column, (height, width))
    return torch.stack((x, y, score), dim=2)


def _taylor_step(
    logs: Tensor, row: Tensor, column: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Return x, y of the extremum of the quadratic through the log map (B, J, 9) at the maximum."""
    height, width = size
    centre = logs[..., 4]
    # Beyond the border the map repeats its edge (replicate padding), hence the selections.
    left, right = _edge(logs, 3, 4, column == 0), _edge(logs, 5, 4, column == width - 1)
    up, down = _edge(logs, 1, 4, row == 0), _edge(logs, 7, 4, row == height - 1)
    up_left = torch.where(column == 0, up, _edge(logs, 0, 3, row == 0))
    down_right = torch.where(column == width - 1, down, _edge(logs, 8, 5, row == height - 1))
    dx, dy = 0.5 * (right - left), 0.5 * (down - up)
    dxx, dyy = right - 2 * centre + left, down - 2 * centre + up
    # Symmetric seven-point mixed difference: (dr - r - d + 2 c - l - u + ul) / 2
    dxy = 0.5 * (down_right - right - down + 2 * centre - left - up + up_left)
    determinant = (dxx + _EPSILON) * (dyy + _EPSILON) - dxy * dxy
    safe = torch.where(determinant.abs() < 1e-12, torch.full_like(determinant, 1e-12), determinant)
    step_x = ((dyy + _EPSILON) * dx - dxy * dy) / safe
    step_y = ((dxx + _EPSILON) * dy - dxy * dx) / safe
    x = (column.float() - step_x).clamp(0.0, width - 1.0)
    y = (row.float() - step_y).clamp(0.0, height - 1.0)
    return x, y


def _edge(logs: Tensor, at: int, inside: int, outside: Tensor) -> Tensor:
    return torch.where(outside, logs[..., inside], logs[..., at])
