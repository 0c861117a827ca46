"""Labelled people as a file: heatmaps of their very joints score 1, of others less."""

import numpy as np
import pytest

from benchmarks.reduction.labelled_people import arrays_of, street_oks
from prunus.models.training.pose.evaluation_sets import HeldOut
from prunus.runtime.errors import UsageError

SIZE = (64, 48)


def _people(count=3):
    rng = np.random.default_rng(0)
    boxes = np.tile(np.array([20.0, 10.0, 80.0, 170.0]), (count, 1))
    joints = rng.uniform((25, 20), (75, 160), (count, 17, 2))
    images = [rng.integers(0, 256, (180, 100, 3), np.uint8) for _ in range(count)]
    return HeldOut("street", "none", images, boxes, joints, np.ones((count, 17), bool))


def _maps(arrays, shift):
    """A Gaussian where each joint lies in the crop, moved by some points of the map."""
    ones = np.ones((*arrays["joints"].shape[:2], 1))
    crop = np.concatenate((arrays["joints"], ones), 2) @ arrays["matrices"].transpose(0, 2, 1)
    x, y = (crop[..., k, None, None] * (n - 1) / (4 * n - 1) + shift for k, n in
            ((0, SIZE[1]), (1, SIZE[0])))  # fmt: skip
    rows, columns = np.arange(SIZE[0])[:, None], np.arange(SIZE[1])
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8).astype(np.float32)


def test_the_score_is_one_for_the_labelled_joints_and_falls_with_distance():
    arrays = arrays_of(_people())
    assert arrays["pixels"].shape == (3, 3, 256, 192) and arrays["pixels"].dtype == np.float32
    assert abs(arrays["pixels"].mean()) < 1.5  # normalised
    right, off = (street_oks({"output": _maps(arrays, k)}, arrays) for k in (0.0, 2.0))
    assert right == pytest.approx(1, abs=0.01) and off < 0.8
    with pytest.raises(UsageError, match="expected heatmaps"):
        street_oks({"output": np.zeros((3, 17, 4))}, arrays)
