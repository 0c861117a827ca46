"""The teachers read the very files that `prunus export movenet` writes."""

import cv2
import numpy as np
import pytest

from prunus.apps.common.media import MEDIA
from prunus.models.training.teachers.movenet import MultiPose, SinglePose
from prunus.models.zoo import model_path


@pytest.fixture(scope="module")
def portrait():
    return cv2.cvtColor(cv2.imread(str(MEDIA / "portrait.jpg")), cv2.COLOR_BGR2RGB)


def test_a_single_person_is_read_at_their_joints(portrait):
    teacher = SinglePose(model_path("movenet_lightning"))
    height, width = portrait.shape[:2]
    joints = teacher.read_person(portrait, np.array([0.0, 0.0, width - 1, height - 1]))
    face = joints[:5]
    assert (face[:, 2] > 0.4).all()
    # Nose below the eyes, between them, and the ears outside: a face looking at the camera.
    nose, left_eye, right_eye, left_ear, right_ear = face[:, :2]
    assert right_ear[0] < right_eye[0] < nose[0] < left_eye[0] < left_ear[0]
    assert nose[1] > max(left_eye[1], right_eye[1])
    assert np.hypot(*(nose - np.array([224, 123]) * width / 512)) < 0.05 * width


def test_people_are_found_where_they_walk():
    clip = cv2.VideoCapture(str(MEDIA / "pedestrians.mp4"))
    fine, frame = clip.read()
    clip.release()
    assert fine
    found = MultiPose(model_path("movenet_multipose")).find(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    assert 2 <= len(found) <= 12
    for joints in found[:2]:
        head, feet = joints[:5, 1].mean(), joints[15:, 1].mean()
        assert feet > head
        assert (joints >= -20).all() and (joints[:, 0] < frame.shape[1] + 20).all()
