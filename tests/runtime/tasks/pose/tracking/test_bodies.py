"""Skeletons stay on one body; clothes tell people apart."""

import dataclasses

import numpy as np
import pytest

from prunus.runtime.tasks.pose.estimator import Pose
from prunus.runtime.tasks.pose.tracking.bodies import (
    grown,
    limb_lengths,
    overlaps,
    separated,
    within_reach,
)
from prunus.runtime.tasks.pose.tracking.looks import alike, blended, looks_of

# Shoulder, hip, left and right ankle of somebody 100 pixels tall.
STANDING = np.array([[0, 0], [0, 40], [-10, 100], [10, 100]], np.float32)
LIMBS = ((0, 1), (1, 2), (1, 3))
MIRROR = np.array([0, 1, 3, 2])


def person(x, scores=(0.9, 0.9, 0.9, 0.9), joints=STANDING):
    moved = joints + np.array((x, 0))
    keypoints = np.concatenate([moved, np.array(scores)[:, None]], 1).astype(np.float32)
    return Pose(keypoints, (x - 20.0, -5.0, x + 20.0, 105.0), 0.9)


def test_a_joint_on_a_neighbours_goes_back_to_where_it_was_expected():
    front, behind = person(100), person(120)
    stolen = behind.keypoints.copy()
    stolen[2, :2] = front.keypoints[2, :2] + 1  # the left ankle lies on the other's left ankle
    found = [front, dataclasses.replace(behind, keypoints=stolen)]
    one, two = separated(found, [person(100), person(120)], MIRROR)
    np.testing.assert_array_equal(one.keypoints, front.keypoints)
    np.testing.assert_allclose(two.keypoints[2], [110, 100, 0])
    np.testing.assert_array_equal(two.keypoints[[0, 1, 3]], stolen[[0, 1, 3]])


def test_sides_may_be_mixed_up_too():
    front, behind = person(100), person(125)
    stolen = behind.keypoints.copy()
    stolen[3, :2] = front.keypoints[2, :2]  # right ankle on the other's left one
    found = [dataclasses.replace(behind, keypoints=stolen), front]
    one, two = separated(found, [person(125), person(100)], MIRROR)
    assert one.keypoints[3, 2] == 0 and one.keypoints[3, 0] == 135
    np.testing.assert_array_equal(two.keypoints, front.keypoints)


def test_people_apart_are_left_alone():
    found = [person(100), person(200)]
    assert separated(found, found, MIRROR) == found
    assert overlaps(np.array([p.box for p in found]))[0, 1] == 0


def test_a_limb_that_stretches_loses_the_end_that_leapt():
    longest = grown(None, limb_lengths(person(0), 100.0, LIMBS))
    assert longest == pytest.approx([0.4, np.hypot(10, 60) / 100, np.hypot(10, 60) / 100])
    far = STANDING.copy()
    far[3] = (90, 110)
    found = within_reach(person(0, joints=far), person(0), 100.0, longest, LIMBS)
    np.testing.assert_allclose(found.keypoints[3], [10, 100, 0])
    assert (found.keypoints[:3, 2] == np.float32(0.9)).all()
    near = within_reach(person(0, joints=STANDING * 1.2), person(0), 100.0, longest, LIMBS)
    assert (near.keypoints[:, 2] > 0).all()
    assert within_reach(person(0, joints=far), person(0), 100.0, None, LIMBS).keypoints[3, 2] > 0


def test_limbs_without_an_end_in_view_say_nothing():
    lengths = limb_lengths(person(0, (0.9, 0.9, 0.1, 0.9)), 100.0, LIMBS)
    assert lengths[1] == 0 and lengths[2] > 0
    assert (grown(lengths, np.zeros(3)) == lengths * 0.995).all()


def test_clothes_tell_people_apart_whatever_the_background():
    limbs = ((0, 1), (1, 2), (1, 3))

    def frame(top, bottom, back):
        picture = np.full((140, 240, 3), back, np.uint8)
        picture[0:42, 95:106] = top
        for k in range(42, 104):
            picture[k, 84:116] = bottom
        return picture

    def view(picture, scores=(0.9,) * 4):
        return looks_of(picture, [person(100, scores)], limbs)

    red = view(frame((20, 20, 200), (120, 30, 20), 90))
    same = view(frame((24, 26, 190), (115, 35, 25), 200))
    blue = view(frame((200, 60, 20), (40, 40, 40), 90))
    unseen = view(frame((20, 20, 200), (120, 30, 20), 90), (0.9, 0.1, 0.9, 0.9))
    assert red.shape == (1, 3, 3)
    found = alike(red, np.concatenate([same, blue, unseen]))
    assert found.shape == (1, 3)
    assert found[0, 0] > 0.8 > 0.1 > found[0, 1]
    assert np.isnan(unseen).all() and found[0, 2] == 0.5
    np.testing.assert_array_equal(blended(red, unseen), red)
    np.testing.assert_array_equal(blended(unseen, red), red)
    assert alike(blended(red, blue), red) > alike(blue, red)


def test_limbs_outside_the_frame_are_not_seen():
    looks = looks_of(np.zeros((50, 240, 3), np.uint8), [person(100)], LIMBS)[0]
    assert np.isfinite(looks[0]).all() and np.isnan(looks[1:]).all()
    assert np.isnan(looks_of(None, [person(100)], LIMBS)).all()
    assert looks_of(np.zeros((50, 240, 3), np.uint8), [], LIMBS).shape == (0, 3, 3)
