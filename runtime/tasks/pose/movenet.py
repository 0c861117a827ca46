"""Read the rows that single-pose MoveNet returns, so that it can stand beside other pose networks.

MoveNet (Google, 2021) decodes inside its graph: one row of y, x and score per joint, where y and x
are fractions of the square input. `PoseEstimator` uses `rows_to_pixels` when the card of a model
names the decoder ``movenet``; the crops, the batches and the mapping back are those of every other
pose network, which makes comparisons on equal boxes fair.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# MoveNet counts from the edge of the first pixel, pictures from its centre, which asks for 0.5; the
# one-sided padding of its strided convolutions gives back 0.25. Measured by mirroring: x + x' is
# W - 0.5 (511.50 of 512 over 1461 joints), where a count from the centre gives W - 1.
PIXEL_SHIFT = 0.25


def rows_to_pixels(
    rows: npt.NDArray[np.float32], height: int, width: int
) -> npt.NDArray[np.float32]:
    """Turn rows of MoveNet into joints in input pixels.

    Args:
        rows: float32 (batch, 1, joints, 3) of y, x in 0..1 (edge to edge) and score in 0..1.
        height: Height of the input in pixels.
        width: Width of the input in pixels.

    Returns:
        float32 (batch, joints, 3) of x, y in input pixels, where the centre of the first pixel is
        0, and score.

    >>> rows_to_pixels(np.array([[[[0.5, 0.25, 0.9]]]], np.float32), 192, 192).round(2).tolist()
    [[[47.75, 95.75, 0.8999999761581421]]]
    """
    flat = rows.reshape(rows.shape[0], rows.shape[-2], 3)
    joints = np.empty_like(flat)
    joints[..., 0] = flat[..., 1] * width - PIXEL_SHIFT
    joints[..., 1] = flat[..., 0] * height - PIXEL_SHIFT
    joints[..., 2] = flat[..., 2]
    return joints
