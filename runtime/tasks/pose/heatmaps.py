"""Joints of heatmaps that a graph returns as they are, for networks that prunus did not export.

DARK (arXiv 1910.06278, section 3.2) in the unbiased pixel convention of UDP (arXiv 1911.07524), as
ViTPose evaluates; what our own graphs compute inside (`models/pose/decode.py`), in numpy.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_BLUR, _SIGMA = 11, 2.0  # taps; heatmap pixels
_FLOOR, _CEILING = 1e-3, 50.0  # clip before the logarithm
_EPSILON = np.float32(1.1920929e-07)  # on the Hessian's diagonal, as in UDP's evaluation
_RADIUS = _BLUR // 2 + 1  # of the blur, and one pixel for the derivatives
SMALLEST = _RADIUS + 1  # rows and columns of a map, which is reflected at its border


def joints_of_heatmaps(maps: Floats, height: int, width: int) -> Floats:
    """Return the joints in pixels of the crop.

    Args:
        maps: (n, joints, rows, columns), any float type, rows and columns from `SMALLEST` up.
        height: Of the crop in pixels.
        width: Of the crop in pixels.

    Returns:
        float32 (n, joints, 3): x in 0..width-1, y in 0..height-1, and the value at the maximum.
    """
    rows, columns = maps.shape[2:]
    flat = maps.astype(np.float32).reshape(*maps.shape[:2], rows * columns)
    best = flat.argmax(axis=2)
    score = flat.max(axis=2)
    row, column = best // columns, best % columns
    logs = np.log(np.clip(_blurred(maps.astype(np.float32), row, column), _FLOOR, _CEILING))
    x, y = _extremum(logs, row, column, rows, columns)
    # UDP: the outer pixel centres of heatmap and crop coincide.
    x *= (width - 1) / (columns - 1)
    y *= (height - 1) / (rows - 1)
    joints: Floats = np.stack((x, y, score), axis=2).astype(np.float32)
    return joints


def _blurred(maps: Floats, row: npt.NDArray[np.intp], column: npt.NDArray[np.intp]) -> Floats:
    """Return (n, joints, 3, 3): the map behind an 11 x 11 Gaussian, around each maximum."""
    taps = [math.exp(-((i - _BLUR // 2) ** 2) / (2 * _SIGMA**2)) for i in range(_BLUR)]
    kernel = np.array(taps, np.float32) / np.float32(sum(taps))
    pad = ((0, 0), (0, 0), (_RADIUS, _RADIUS), (_RADIUS, _RADIUS))
    padded = np.pad(maps, pad, mode="reflect")
    side = np.arange(2 * _RADIUS + 1)
    person, joint = np.ogrid[: maps.shape[0], : maps.shape[1]]
    near = padded[
        person[..., None, None], joint[..., None, None],
        row[..., None, None] + side[:, None], column[..., None, None] + side,
    ]  # fmt: skip
    windows = np.lib.stride_tricks.sliding_window_view(near, (_BLUR, _BLUR), axis=(2, 3))
    result: Floats = np.einsum("njyxab,a,b->njyx", windows, kernel, kernel, dtype=np.float32)
    return result


def _extremum(
    logs: Floats,
    row: npt.NDArray[np.intp],
    column: npt.NDArray[np.intp],
    rows: int,
    columns: int,
) -> tuple[Floats, Floats]:
    """Return x, y of the extremum of the quadratic through the logarithms (n, joints, 3, 3)."""
    # Beyond the border the map repeats its edge: such values are read one pixel further inside.
    up, down = np.where(row == 0, 1, 0), np.where(row == rows - 1, 1, 2)
    left, right = np.where(column == 0, 1, 0), np.where(column == columns - 1, 1, 2)
    person, joint = np.ogrid[: logs.shape[0], : logs.shape[1]]

    def at(y: npt.NDArray[np.intp] | int, x: npt.NDArray[np.intp] | int) -> Floats:
        values: Floats = logs[person, joint, y, x]
        return values

    centre, dx, dy = at(1, 1), (at(1, right) - at(1, left)) / 2, (at(down, 1) - at(up, 1)) / 2
    dxx = at(1, right) - 2 * centre + at(1, left) + _EPSILON
    dyy = at(down, 1) - 2 * centre + at(up, 1) + _EPSILON
    # Symmetric seven-point mixed difference: (dr - r - d + 2 c - l - u + ul) / 2
    mixed = at(down, right) - at(1, right) - at(down, 1) + 2 * centre
    dxy = (mixed - at(1, left) - at(up, 1) + at(up, left)) / 2
    determinant = dxx * dyy - dxy * dxy
    safe = np.where(np.abs(determinant) < 1e-12, np.float32(1e-12), determinant)
    x = column - (dyy * dx - dxy * dy) / safe
    y = row - (dxx * dy - dxy * dx) / safe
    return np.clip(x, 0, columns - 1), np.clip(y, 0, rows - 1)
