"""The people finder on planted heads and, with its true weights, on the bundled clip."""


import cv2
import numpy as np
import pytest

from prunus.apps.common.media import MEDIA
from prunus.models import zoo
from prunus.runtime.errors import ArtifactError, TensorError
from prunus.runtime.tasks.pose.movenet import PIXEL_SHIFT
from prunus.runtime.tasks.pose.people import (
    People,
    PeopleFinder,
    _to_image,
    decode_multipose,
)
from prunus.runtime.tasks.pose.similarity import box_iou


def _heads(rows: int, columns: int) -> dict[str, np.ndarray]:
    shapes = {
        "centre": 1,
        "heatmaps": 17,
        "regression": 34,
        "offsets": 34,
        "box_scale": 2,
        "box_offset": 2,
    }
    return {k: np.zeros((1, rows, columns, n), np.float32) for k, n in shapes.items()}


def _plant(heads: dict[str, np.ndarray], row: int, column: int, value: float) -> None:
    """A person whose joint j lies j // 2 cells below and 1 cell right of the regressed guess."""
    heads["centre"][0, row, column] = value
    heads["box_scale"][0, row, column] = 24, 16
    for j in range(17):
        heads["regression"][0, row, column, 2 * j : 2 * j + 2] = j // 2 - 5, -2
        heads["heatmaps"][0, row + j // 2 - 5, column - 1, j] = 0.8
        heads["offsets"][0, row + j // 2 - 5, column - 1, 2 * j : 2 * j + 2] = 0.25, -0.5


def test_planted_people_come_back() -> None:
    heads = _heads(60, 80)
    _plant(heads, 20, 20, 0.7)
    _plant(heads, 40, 60, 0.9)
    people = decode_multipose(heads, 4, 10, 0.1)
    assert people.centres.tolist() == pytest.approx([0.9, 0.7])
    for (row, column), joints, box in zip(
        [(40, 60), (20, 20)], people.keypoints, people.boxes, strict=True
    ):
        below = row + np.arange(17) // 2 - 5 + 0.25
        np.testing.assert_allclose(joints[:, 1], below * 4, atol=1e-4)
        np.testing.assert_allclose(joints[:, 0], (column - 1.5) * 4, atol=1e-4)
        weight = 0.8 * np.exp(-1 / (0.3 * 60))  # one cell beside the guess
        np.testing.assert_allclose(joints[:, 2], weight, rtol=1e-5)
        np.testing.assert_allclose(box, np.array([column - 8, row - 12, column + 8, row + 12]) * 4)


def test_only_the_highest_centre_of_a_neighbourhood_counts() -> None:
    heads = _heads(40, 40)
    _plant(heads, 20, 20, 0.7)
    heads["centre"][0, 21, 22] = 0.6
    heads["centre"][0, 20, 23] = 0.5  # three cells away: a neighbour of nobody higher than 0.6
    assert len(decode_multipose(heads, 4, 10, 0.1).scores) == 1
    assert len(decode_multipose(heads, 4, 1, 0.0).scores) == 1


def test_nobody() -> None:
    people = decode_multipose(_heads(8, 8), 4, 10, 0.1)
    assert people.keypoints.shape == (0, 17, 3)
    assert people.boxes.shape == (0, 4)


@pytest.fixture(scope="module")
def finder() -> PeopleFinder:
    return PeopleFinder.open(zoo.model_path("movenet_multipose"), "onnxruntime", threads=1)


def _frame(number: int) -> np.ndarray:
    video = cv2.VideoCapture(str(MEDIA / "pedestrians.mp4"))
    for _ in range(number + 1):
        ok, frame = video.read()
        assert ok
    return frame


def test_walkers_are_found_where_they_stand(finder: PeopleFinder) -> None:
    """Centres of eight walkers in frame 3 of the clip, read off the picture by eye."""
    people = finder(_frame(3))
    by_eye = [
        (126, 342), (192, 203), (309, 256), (371, 213),
        (420, 175), (479, 170), (535, 197), (712, 264),
    ]  # fmt: skip
    boxes = np.array([p.box for p in people])
    for x, y in by_eye:
        inside = (boxes[:, 0] < x) & (x < boxes[:, 2]) & (boxes[:, 1] < y) & (y < boxes[:, 3])
        assert inside.any(), (x, y, boxes.round())
    assert len(people) <= 9
    for p in people:
        assert p.keypoints.shape == (17, 3)
        assert p.score >= finder.minimum_score


def test_scores_and_places_do_not_depend_on_the_size_of_the_frame(finder: PeopleFinder) -> None:
    frame = _frame(3)
    small, large = finder(frame), finder(cv2.resize(frame, None, fx=2, fy=2))
    best = small[0]
    again = min(
        large, key=lambda p: abs(p.box[0] / 2 - best.box[0]) + abs(p.box[1] / 2 - best.box[1])
    )
    seen = best.keypoints[:, 2] > 0.3
    moved = np.abs((again.keypoints[:, :2] + 0.5) / 2 - 0.5 - best.keypoints[:, :2])[seen]
    assert np.median(moved) < 1.0


def test_boxes_of_a_mirrored_frame_are_the_mirrored_boxes(finder: PeopleFinder) -> None:
    """Boxes count from the frame's edge: x becomes W - x. They were 0.9 px off, to the left."""
    shifts = []
    video = cv2.VideoCapture(str(MEDIA / "pedestrians.mp4"))
    for number in range(100):
        frame = video.read()[1]
        if number % 8 != 5:
            continue
        width = frame.shape[1]
        boxes = np.array([p.box for p in finder(frame)])
        turned = np.array([p.box for p in finder(np.ascontiguousarray(frame[:, ::-1]))])
        turned[:, [0, 2]] = width - turned[:, [2, 0]]
        overlap = box_iou(boxes, turned)
        pairs = [(i, int(overlap[i].argmax())) for i in range(len(boxes))]
        shifts += [boxes[i] - turned[j] for i, j in pairs if overlap[i, j] > 0.6]
    assert len(shifts) > 60
    assert np.abs(np.median(shifts, axis=0)[[0, 2]]).max() < 0.4


@pytest.mark.parametrize("size", [(1, 1), (2, 3000), (3000, 2)])
def test_odd_frames_hold_nobody(finder: PeopleFinder, size: tuple[int, int]) -> None:
    assert finder(np.full((*size, 3), 128, np.uint8)) == []


def test_wrong_input_is_refused(finder: PeopleFinder) -> None:
    with pytest.raises(TensorError):
        finder(np.zeros((9, 9), np.uint8))
    with pytest.raises(ArtifactError, match="people finder"):
        PeopleFinder.open(zoo.model_path("movenet_lightning"), "onnxruntime", threads=1)


def test_people_of_the_input_in_pixels_of_the_picture() -> None:
    """Heads count from `PIXEL_SHIFT` in a pixel, joints from its centre, boxes from its edge."""
    joints = np.array([[[30, 40, 0.5], [60, 20, 0.9]]], np.float32)
    people = People(joints, np.array([[-6.0, 10, 30, 400]], np.float32), *np.float32([[0.7], [1]]))
    scale = np.array([0.5, 0.25])  # pixels of the input per pixel of the picture, x and y
    (pose,) = _to_image(people, scale, (480, 640, 3))
    edge = 0.5 - PIXEL_SHIFT
    np.testing.assert_allclose(
        pose.keypoints,
        [[(30 + edge) * 2 - 0.5, (40 + edge) * 4 - 0.5, 0.5],
         [(60 + edge) * 2 - 0.5, (20 + edge) * 4 - 0.5, 0.9]],
        rtol=1e-6,
    )  # fmt: skip
    assert pose.box == pytest.approx((0, (10 + edge) * 4, (30 + edge) * 2, 480))
    assert pose.score == pytest.approx(0.7)
    assert joints[0, 0].tolist() == [30, 40, 0.5]  # the caller's stay as they were
    wide = People(joints, np.array([[10.0, -9, 900, 20]], np.float32), *np.float32([[0.7], [1]]))
    (pose,) = _to_image(wide, scale, (480, 640, 3))
    assert pose.box == pytest.approx(((10 + edge) * 2, 0, 640, (20 + edge) * 4))
