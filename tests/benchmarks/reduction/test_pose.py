"""Joints read off patches, and the people whose joints they are."""

import numpy as np
import pytest

from benchmarks.reduction import pose
from benchmarks.reduction.pose import LinearReadOut, person_scores
from prunus.models.training.pose.evaluation_sets import HeldOut
from prunus.runtime.errors import SourceError


def _people(seed: int, count: int = 20) -> HeldOut:
    """People whose boxes fill most of a square of 56 pixels, joints away from its borders."""
    rng = np.random.default_rng(seed)
    joints = rng.uniform(16, 40, (count, 17, 2))
    boxes = np.tile(np.array([8.0, 8.0, 48.0, 48.0]), (count, 1))
    known = rng.random((count, 17)) > 0.1
    return HeldOut(
        "people", "none", [np.zeros((56, 56, 3), np.uint8)] * count, boxes, joints, known
    )


def _features(read_out: LinearReadOut, mix: np.ndarray) -> np.ndarray:
    """A special token, then patches that mix what is to be told of them."""
    parts = []
    for people in (read_out.train, read_out.test):
        told = LinearReadOut(people, people, read_out.side)._targets()
        parts.append(told.reshape(len(told), -1, told.shape[-1]) @ mix)
    patches = np.concatenate(parts).astype(np.float32)
    return np.concatenate((np.full_like(patches[:, :1], 9.0), patches), 1)


def test_joints_are_read_off_patches_that_tell_them_and_not_off_noise():
    read_out = LinearReadOut(_people(0, 40), _people(1), 112)
    mix = np.random.default_rng(2).standard_normal((17 * 16, 17 * 16)) / 16
    features = _features(read_out, mix)
    scores = read_out(features, (8, 8), (8, 8))
    assert scores.whole.sum() == 20 and scores.accuracy > 0.95
    noise = np.random.default_rng(3).standard_normal(features.shape).astype(np.float32)
    assert read_out(noise, (8, 8), (8, 8)).accuracy < 0.4


def test_coarse_grids_are_enlarged_and_crops_lie_in_the_middle():
    read_out = LinearReadOut(_people(0), _people(1), 56)
    patches = np.arange(8, dtype=np.float32).reshape(1, 8, 1)
    placed = read_out.on_grid(patches, (4, 2), (4, 2))[0, ..., 0]
    np.testing.assert_array_equal(placed[:, 1:3], np.arange(8).reshape(4, 2))
    assert not placed[:, [0, 3]].any()
    enlarged = read_out.on_grid(patches[:, :4], (2, 2), (4, 4))[0, ..., 0]
    assert enlarged.shape == (4, 4)
    np.testing.assert_allclose(enlarged[0], [0, 0.25, 0.75, 1])
    np.testing.assert_allclose(enlarged[:, 0], [0, 0.5, 1.5, 2])


def test_people_without_labels_do_not_count():
    people = _people(0, 3)
    people.labelled[1] = False
    scores = person_scores(people.joints, people)
    np.testing.assert_allclose(scores.right, [1, 0, 1])
    np.testing.assert_allclose(scores.whole, [1, 0, 1])
    assert scores.accuracy == 1
    assert person_scores(people.joints + 30, people).accuracy < 0.2


def test_missing_people_are_explained(tmp_path):
    with pytest.raises(SourceError, match="No labelled people"):
        pose.read_people(tmp_path, "street", 5)
