"""Rows of MoveNet become joints in input pixels."""

import numpy as np

from prunus.runtime.tasks.pose.movenet import PIXEL_SHIFT, rows_to_pixels


def test_rows_swap_axes_and_scale() -> None:
    rows = np.array([[[[0.25, 0.5, 0.9], [0.0, 1.0, 0.1]]]], np.float32)
    joints = rows_to_pixels(rows, 192, 256)
    assert joints.shape == (1, 2, 3)
    expected = [[128 - PIXEL_SHIFT, 48 - PIXEL_SHIFT, 0.9], [256 - PIXEL_SHIFT, -PIXEL_SHIFT, 0.1]]
    np.testing.assert_allclose(joints[0], expected, rtol=1e-6)
    assert rows[0, 0, 0, 0] == 0.25
