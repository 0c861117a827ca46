"""Colours along limbs: which ones, where they are unknown, and how alike two people are."""

import numpy as np
import pytest

from prunus.runtime.tasks.pose.estimator import Pose
from prunus.runtime.tasks.pose.tracking.looks import alike, blended, looks_of

LIMBS = ((0, 1), (1, 2))


def _pose(*joints, score=0.9) -> Pose:
    rows = [joint if len(joint) == 3 else (*joint, score) for joint in joints]
    return Pose(np.array(rows, np.float32), (0.0, 0.0, 50.0, 50.0), 0.9)


def _frame() -> np.ndarray:
    frame = np.zeros((50, 80, 3), np.uint8)
    frame[10] = (30, 60, 90)  # blue, green, red of the row that the first limb lies on
    frame[10:50, 40] = (200, 100, 60)  # and of the column of the second
    return frame


def test_brightness_and_two_colours_of_each_limb() -> None:
    looks = looks_of(_frame(), [_pose((10, 10), (40, 10), (40, 49))], LIMBS)
    assert looks.dtype == np.float32
    np.testing.assert_allclose(looks, [[[60, 60, 90], [120, -80, -240]]])


def test_the_middle_counts_and_not_the_ends() -> None:
    frame = _frame()
    frame[10, :17] = frame[10, 34:] = 255  # less than three tenths of the limb at each end
    frame[10, 25] = 255  # and a button
    looks = looks_of(frame, [_pose((10, 10), (40, 10), (40, 49))], LIMBS)
    np.testing.assert_allclose(looks[0, 0], [60, 60, 90])


@pytest.mark.parametrize("score", [0.2, 0.0])
def test_a_limb_without_a_joint_says_nothing(score) -> None:
    looks = looks_of(_frame(), [_pose((10, 10, score), (40, 10), (40, 49))], LIMBS)
    assert np.isnan(looks[0, 0]).all() and not np.isnan(looks[0, 1]).any()
    looks = looks_of(_frame(), [_pose((10, 10), (40, 10), (40, 49, score))], LIMBS)
    assert np.isnan(looks[0, 1]).all() and not np.isnan(looks[0, 0]).any()


def test_at_the_edges_of_the_frame() -> None:
    frame = np.full((20, 30, 3), 9, np.uint8)
    joints = [(0, 0), (29, 19), (0, 19), (29, 0)]
    inside = looks_of(frame, [_pose(*joints)], [(0, 2), (1, 3), (0, 3), (1, 2)])
    np.testing.assert_allclose(inside, np.broadcast_to([9, 0, 0], (1, 4, 3)))
    outside = [(-1, 5), (-1, 9), (30, 5), (30, 9), (5, -1), (9, -1), (5, 20), (9, 20)]
    beyond = looks_of(frame, [_pose(*outside)], [(0, 1), (2, 3), (4, 5), (6, 7)])
    assert np.isnan(beyond).all()
    lost = looks_of(frame, [_pose((np.nan, 5), (10, 5), (20, 5))], LIMBS)
    assert np.isnan(lost[0, 0]).all() and not np.isnan(lost[0, 1]).any()


def test_people_keep_their_order() -> None:
    frame = np.zeros((20, 30, 3), np.uint8)
    frame[:, 15:] = 100
    people = [_pose((20, 2), (20, 9), (20, 15)), _pose((2, 2), (2, 9), (2, 15))]
    assert looks_of(frame, people, LIMBS)[:, :, 0].tolist() == [[100, 100], [0, 0]]


@pytest.mark.parametrize(
    ("frame", "poses", "limbs", "shape"),
    [
        (None, [_pose((1, 1), (2, 2))], ((0, 1),), (1, 1, 3)),
        (_frame(), [], LIMBS, (0, 2, 3)),
        (_frame(), [_pose((1, 1))], (), (1, 0, 3)),
        (_frame(), [_pose((1, 1), (2, 2))], LIMBS, (1, 2, 3)),  # no third joint
    ],
)
def test_where_nothing_is_seen(frame, poses, limbs, shape) -> None:
    looks = looks_of(frame, poses, limbs)
    assert looks.shape == shape and looks.dtype == np.float32 and np.isnan(looks).all()


def test_the_last_joint_may_be_an_end() -> None:
    assert not np.isnan(looks_of(_frame(), [_pose((1, 1), (2, 2))], ((0, 1),))).any()


def test_how_alike_falls_with_the_distance() -> None:
    first = np.zeros((1, 4, 3), np.float32)
    second = np.stack([np.full((4, 3), levels) for levels in (0.0, 30.0, 60.0, 79.0, 81.0, 500.0)])
    expected = np.exp(-np.square([0, 30, 60, 79, 80, 80]) / (2 * 30**2))
    np.testing.assert_allclose(alike(first, second), expected[None])
    np.testing.assert_allclose(alike(second, first), expected[:, None])


def test_one_hidden_limb_changes_little_and_too_few_say_nothing() -> None:
    first, second = np.zeros((1, 4, 3), np.float32), np.zeros((1, 4, 3), np.float32)
    second[0, 0] = 500
    np.testing.assert_allclose(alike(first, second), np.exp(-(80**2) / 4 / (2 * 30**2)))
    second[0, 0] = np.nan
    assert alike(first, second) == 1.0  # three are left, all equal
    first[0, 1] = np.nan
    assert alike(first, second) == 0.5
    assert alike(first[:, :0], second[:, :0]) == 0.5


def test_memory_moves_by_a_share_and_takes_what_is_new() -> None:
    nan = np.nan
    old = np.array([[100, 10, 0], [nan] * 3, [50] * 3, [nan] * 3], np.float32)
    new = np.array([[40, 30, -20], [7, 8, 9], [nan] * 3, [nan] * 3], np.float32)
    expected = [[91, 13, -3], [7, 8, 9], [50] * 3, [nan] * 3]
    np.testing.assert_allclose(blended(old, new), expected, rtol=1e-6)
