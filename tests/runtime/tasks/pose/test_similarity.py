"""Overlap of boxes and similarity of joints, in numbers worked out by hand."""

import numpy as np
import pytest

from prunus.runtime.tasks.pose.estimator import Pose
from prunus.runtime.tasks.pose.similarity import box_iou, box_of_joints, keypoint_similarity


def _pose(joints, box=(0.0, 0.0, 10.0, 40.0)) -> Pose:
    return Pose(np.array(joints, np.float32), box, 0.9)


def test_overlap_of_boxes() -> None:
    first = np.array([[0.0, 0, 10, 20], [100, 0, 110, 20]])
    second = np.array([[0.0, 0, 10, 20], [5, 10, 15, 30], [10, 0, 20, 20], [0, 5, 10, 10]])
    expected = [[1, 50 / 350, 0, 0.25], [0, 0, 0, 0]]
    np.testing.assert_allclose(box_iou(first, second), expected)
    np.testing.assert_allclose(box_iou(second, first), np.transpose(expected))


def test_boxes_without_area_overlap_with_nothing() -> None:
    nothing = np.zeros((1, 4))
    assert box_iou(nothing, nothing) == 0
    assert box_iou(np.zeros((0, 4)), nothing).shape == (0, 1)


def test_joints_by_the_definition_of_coco() -> None:
    sigmas = np.array([0.1, 0.05])
    first = _pose([(0, 0, 0.9), (5, 5, 0.9)])
    second = _pose([(3, 4, 0.9), (5, 7, 0.9)], box=(0.0, 0.0, 20.0, 50.0))
    # The larger box has an area of 1000; squared distances are 25 and 4.
    expected = np.mean(np.exp(-np.array([25, 4]) / (2 * 1000 * (2 * sigmas) ** 2)))
    np.testing.assert_allclose(keypoint_similarity([first], [second], sigmas), [[expected]])
    np.testing.assert_allclose(keypoint_similarity([second], [first], sigmas), [[expected]])
    found = keypoint_similarity([first, second], [second, first, first], sigmas)
    np.testing.assert_allclose(found, [[expected, 1, 1], [1, expected, expected]])


@pytest.mark.parametrize(
    ("mine", "theirs", "shared"),
    [(0.9, 0.9, 2), (0.2, 0.9, 1), (0.9, 0.2, 1), (0.2, 0.2, 1), (0.21, 0.21, 2)],
)
def test_joints_count_where_both_see_them(mine, theirs, shared) -> None:
    first, second = _pose([(0, 0, 0.9), (0, 0, mine)]), _pose([(0, 0, 0.9), (1e4, 0, theirs)])
    found = keypoint_similarity([first], [second], np.array([0.1, 0.1]))
    assert found == pytest.approx(1 / shared)


def test_people_who_share_no_joint() -> None:
    first, second = _pose([(0, 0, 0.9), (0, 0, 0)]), _pose([(0, 0, 0), (0, 0, 0.9)])
    assert keypoint_similarity([first], [second], np.ones(2)) == 0
    assert keypoint_similarity([], [second], np.ones(2)).shape == (0, 1)
    assert keypoint_similarity([first], [], np.ones(2)).shape == (1, 0)


def test_a_box_without_area_counts_as_one_pixel() -> None:
    first, second = (_pose([(x, 0, 0.9)], (0.0, 0.0, 0.0, 0.0)) for x in (0, 1))
    found = keypoint_similarity([first], [second], np.array([0.5]))
    assert found == pytest.approx(np.exp(-0.5))


def test_a_box_around_joints_has_room_for_head_and_feet() -> None:
    joints = [(10, 20, 0.9), (30, 20, 0.9), (10, 120, 0.21), (20, 60, 0.9), (900, 900, 0.2)]
    assert box_of_joints(_pose(joints)) == pytest.approx((-2, 8, 42, 132))


def test_too_few_joints_give_the_box_of_the_pose() -> None:
    pose = _pose([(10, 20, 0.9)] * 3 + [(0, 0, 0.2)])
    assert box_of_joints(pose) == pose.box
    assert box_of_joints(pose, minimum_joints=3) == pytest.approx((10, 20, 10, 20))
