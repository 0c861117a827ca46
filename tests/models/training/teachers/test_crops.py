import numpy as np
import pytest

from prunus.models.training.teachers.crops import (
    HELD_OUT_FRAMES,
    TRAIN_FRAMES,
    box_of_joints,
    cut_person,
    label_frame,
    read_frames,
)
from prunus.models.training.teachers.movenet import SinglePose
from prunus.runtime.errors import ArtifactError, SourceError

PERSON = np.stack([np.linspace(80, 120, 17), np.linspace(60, 160, 17)], 1).astype(np.float32)


class _Finder:
    def __init__(self, people):
        self._people = people

    def find(self, image):
        return self._people


class _Teacher:
    def __init__(self, answers):
        self._answers = list(answers)

    def read_person(self, image, box):
        return self._answers.pop(0)


def _reading(points, score=0.8):
    return np.concatenate([points, np.full((17, 1), score, np.float32)], 1)


def _label(people, answers):
    return label_frame(np.zeros((200, 200, 3), np.uint8), _Finder(people), _Teacher(answers))


def test_training_and_held_out_frames_are_apart():
    assert TRAIN_FRAMES[1] <= HELD_OUT_FRAMES[0] - 50


def test_a_confident_agreeing_reading_is_taken_once():
    assert len(_label([PERSON], [_reading(PERSON + 2)])) == 1
    assert len(_label([PERSON, PERSON + 1], [_reading(PERSON), _reading(PERSON + 1)])) == 1


@pytest.mark.parametrize(
    "answer",
    [_reading(PERSON, 0.1), _reading(PERSON + np.float32([70, 0]))],
    ids=["unsure", "somebody else"],
)
def test_doubtful_readings_are_dropped(answer):
    assert _label([PERSON], [answer]) == []


def test_a_crop_keeps_joints_on_their_pixels():
    image = np.zeros((240, 320, 3), np.uint8)
    for x, y in np.rint(PERSON).astype(int):
        image[y - 1 : y + 2, x - 1 : x + 2] = 255
    joints = np.concatenate([np.rint(PERSON), np.full((17, 1), 0.9)], 1).astype(np.float32)
    canvas, moved, box = cut_person(image, joints)
    for x, y, score in moved:
        assert score == pytest.approx(0.9)
        assert canvas[round(float(y)), round(float(x)), 0] > 200
    assert np.all(moved[:, :2].min(0) > box[:2]) and np.all(moved[:, :2].max(0) < box[2:])


def test_unsure_joints_do_not_stretch_the_box():
    joints = PERSON.copy()
    score = np.full(17, 0.9)
    score[16], joints[16] = 0.05, (500, 500)
    assert box_of_joints(joints, score)[2] < 200


def test_a_missing_clip_and_a_missing_teacher_are_explained(tmp_path):
    with pytest.raises(SourceError, match="opencv-doc"):
        next(read_frames(tmp_path / "none.avi", 0, 1, 1))
    with pytest.raises(ArtifactError, match="prunus export movenet"):
        SinglePose(tmp_path / "none.onnx")
