"""Numbered faces and meters on a frame."""

import json

import numpy as np
import pytest

from prunus.apps.separation.face_overlay import draw_faces, draw_meters, face_shapes, level_db
from prunus.runtime.tasks.faces.finder import Face


def _face(number: int, x: float) -> Face:
    points = np.zeros((468, 3), np.float32)
    points[:, 0], points[:, 1] = x + 40, 150
    return Face(number, points, (x, 80, x + 80, 200), 1.0, 1.0)


def test_the_chosen_face_has_the_thicker_box() -> None:
    scene = np.zeros((480, 640, 3), np.uint8)
    drawn = draw_faces(scene, [_face(1, 100), _face(2, 400)], 2)
    assert drawn is scene
    left, right = (int((scene[140, x - 12 : x + 12] > 0).any(-1).sum()) for x in (100, 400))
    assert right > left > 0


def test_a_face_far_outside_does_not_break_the_drawing() -> None:
    draw_faces(np.zeros((240, 320, 3), np.uint8), [_face(1, 1e9), _face(2, -1e9)], 1)


def test_meters_grow_with_the_level() -> None:
    bars = []
    for level in (-60.0, -30.0, -3.0):
        scene = draw_meters(np.zeros((480, 640, 3), np.uint8), [("mix", level)])
        bars.append(int((scene.max(axis=2) > 100).sum()))
    assert bars[0] < bars[1] < bars[2]
    small = np.zeros((100, 100, 3), np.uint8)
    assert not draw_meters(small, [("mix", 0.0)]).any()


def test_levels_are_of_full_scale() -> None:
    tone = np.sin(np.arange(16_000) / 5).astype(np.float32)
    assert level_db(tone) == pytest.approx(-3.01, abs=0.05)
    assert level_db(np.zeros(100, np.float32)) == level_db(tone[:0]) == -60


def test_shapes_are_what_is_drawn() -> None:
    one, two = face_shapes([_face(1, 100), _face(2, 400)], 2)
    assert one["box"] == [100, 80, 180, 200] and (one["label"], two["label"]) == ("1", "2 heard")
    assert not one["strong"] and two["strong"]
    assert set(one["rings"][0][::2]) == {140} and set(one["rings"][0][1::2]) == {150}
    assert json.loads(json.dumps(one, allow_nan=False)) == one
