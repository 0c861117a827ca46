"""The overlay: drawn where the joints are, safe for any coordinates and any frame size."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from prunus.apps.pose.overlay import (
    LEFT,
    MIDDLE,
    RIGHT,
    Bones,
    draw_panel,
    draw_people,
    draw_tokens,
    people_shapes,
    skeleton_shape,
)
from prunus.runtime.card.artifact import read_card
from prunus.runtime.tasks.pose.estimator import CropTokens, Pose


@pytest.fixture(scope="module")
def bones():
    from prunus.models import zoo

    return Bones.of(read_card(zoo.model_path("movenet_lightning")).postprocess)


def person(x, y, score=0.9, track_id=-1):
    keypoints = np.zeros((17, 3), np.float32)
    keypoints[:, 0], keypoints[:, 1], keypoints[:, 2] = x, y, score
    return Pose(keypoints, (0.0, 0.0, 40.0, 90.0), 0.9, track_id)


def test_colours_follow_the_sides(bones):
    assert bones.joint_colours[0] == MIDDLE  # nose
    assert bones.joint_colours[5] == LEFT
    assert bones.joint_colours[6] == RIGHT
    across = bones.limbs.index((5, 6)) if (5, 6) in bones.limbs else bones.limbs.index((6, 5))
    assert bones.limb_colours[across] == MIDDLE


def test_joints_are_drawn_in_place(bones):
    scene = np.zeros((240, 320, 3), np.uint8)
    draw_people(scene, [person(160.0, 120.0)], bones)
    changed = np.argwhere(scene.any(2))
    assert np.abs(changed.mean(0) - (120, 160)).max() < 2
    assert len(changed) < 300


def test_patches_that_were_dropped_are_darker_the_earlier_the_darker():
    scene = np.full((100, 120, 3), 200, np.uint8)
    first, last = np.array([[-1, 0], [1, 2]], np.int32), np.array([[-1, -1], [0, 1]], np.int32)
    draw_tokens(scene, [CropTokens((20.0, 40.0, 40.0, 80.0), {3: first, 6: last}), None])
    assert all((part == 200).all() for part in (scene[:40], scene[:, :20], scene[:, 60:]))
    assert (scene[40:80, 20:40] == 50).all() and (scene[40:80, 40:60] == 125).all()
    assert (scene[80:, 20:60] == 200).all()  # cells that survived, as far as the frame goes


def test_uncertain_joints_are_not_drawn(bones):
    scene = np.zeros((240, 320, 3), np.uint8)
    draw_people(scene, [person(160.0, 120.0, score=0.1)], bones)
    assert not scene.any()


@pytest.mark.parametrize("value", [1e30, -1e30, np.nan, np.inf])
def test_wild_coordinates_do_no_harm(bones, value):
    scene = np.zeros((240, 320, 3), np.uint8)
    wild = person(160.0, 120.0, track_id=4)
    wild.keypoints[3, :2] = value
    draw_people(scene, [wild], bones)


def test_names_are_drawn_for_tracked_people(bones):
    plain, named = (np.zeros((240, 320, 3), np.uint8) for _ in range(2))
    draw_people(plain, [person(160.0, 120.0)], bones)
    draw_people(named, [person(160.0, 120.0, track_id=2)], bones)
    assert (named != plain).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (199, 900), (3000, 2)])
def test_frames_too_small_for_text_stay_as_they_are(bones, size):
    scene = np.full((*size, 3), 50, np.uint8)
    draw_panel(scene, ["text"])
    draw_people(scene, [person(0.0, 0.0, track_id=1)], bones)
    assert scene.shape == (*size, 3)


def test_panel_stays_in_its_corner_even_with_long_lines():
    scene = np.full((480, 640, 3), 50, np.uint8)
    draw_panel(scene, ["a very long line of text " * 8, "b"])
    assert (scene[:20, :20] != 50).any()
    assert (scene[240:] == 50).all()


def test_shapes_are_json_whatever_the_coordinates(bones):
    wild = person(160.04, 120.0, track_id=4)
    wild.keypoints[3] = (np.nan, np.inf, np.nan)
    (shape,) = people_shapes([dataclasses.replace(wild, age_s=0.25)])
    assert shape["label"] == "4 250ms" and shape["box"] == [0, 0, 40, 90]
    assert shape["joints"][0] == [160.0, 120.0, 0.9] and shape["joints"][3] == [0, 0, 0]
    skeleton = skeleton_shape(bones)
    assert max(max(limb) for limb in skeleton["limbs"]) < len(skeleton["joint_colours"]) == 17
    json.dumps([shape, skeleton], allow_nan=False)
