"""The face finder on planted heads and, with its true weights, on the bundled portrait."""

from pathlib import Path

import cv2
import numpy as np
import pytest

import prunus.apps
from prunus.models import zoo
from prunus.runtime.errors import ArtifactError, TensorError
from prunus.runtime.tasks.faces.boxes import FaceFinder, decode_faces
from prunus.runtime.tasks.faces.card import FacesPostprocess

PORTRAIT = Path(prunus.apps.__path__[0]) / "media" / "portrait.jpg"
POST = FacesPostprocess((16, 32), (2, 6), ("a", "b"))


def _heads() -> dict[str, np.ndarray]:
    heads = {}
    for stride, count in ((16, 512), (32, 384)):
        heads[f"scores_{stride}"] = np.full((1, count, 1), -200.0, np.float32)
        heads[f"rows_{stride}"] = np.zeros((1, count, 8), np.float32)
    return heads


def _plant(heads, stride: int, row: int, column: int, logit: float, values: list[float]) -> None:
    per, cells = (2, 16) if stride == 16 else (6, 8)
    index = (row * cells + column) * per
    heads[f"scores_{stride}"][0, index] = logit
    heads[f"rows_{stride}"][0, index] = values


def test_planted_faces_come_back() -> None:
    heads = _heads()
    _plant(heads, 16, 3, 7, 2.0, [1, -2, 20, 40, 5, 6, -7, 8])
    _plant(heads, 32, 6, 2, 4.0, [0, 0, 100, 100, 0, 0, 1, 1])
    rows, scores = decode_faces(heads, 256, POST)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-np.array([4.0, 2.0]))), rtol=1e-6)
    x, y = 2.5 * 32, 6.5 * 32
    np.testing.assert_allclose(rows[0], [x - 50, y - 50, x + 50, y + 50, x, y, x + 1, y + 1])
    x, y = 7.5 * 16, 3.5 * 16
    expected = [x + 1 - 10, y - 2 - 20, x + 1 + 10, y - 2 + 20, x + 5, y + 6, x - 7, y + 8]
    np.testing.assert_allclose(rows[1], expected)


def test_answers_that_overlap_are_averaged_by_their_scores() -> None:
    heads = _heads()
    _plant(heads, 16, 3, 7, 3.0, [0, 0, 60, 60, 0, 0, 0, 0])
    _plant(heads, 16, 3, 8, 0.5, [0, 0, 60, 60, 0, 0, 0, 0])  # 16 pixels to the right
    rows, scores = decode_faces(heads, 256, POST)
    weights = 1 / (1 + np.exp(-np.array([3.0, 0.5])))
    assert len(rows) == 1 and scores[0] == pytest.approx(weights[0])
    middle = (rows[0, 0] + rows[0, 2]) / 2
    assert middle == pytest.approx(7.5 * 16 + 16 * weights[1] / weights.sum(), abs=1e-3)


def test_unsure_answers_are_dropped() -> None:
    heads = _heads()
    _plant(heads, 16, 3, 7, -0.1, [0, 0, 60, 60, 0, 0, 0, 0])
    rows, scores = decode_faces(heads, 256, POST)
    assert rows.shape == (0, 8) and scores.shape == (0,)


@pytest.fixture(scope="module")
def finder():
    with FaceFinder.open(zoo.model_path("blazeface_full"), "onnxruntime", 1) as opened:
        yield opened


def test_the_portrait_has_one_face_in_its_place(finder: FaceFinder) -> None:
    picture = cv2.imread(str(PORTRAIT))
    (face,) = finder(picture)
    assert face.score > 0.8
    np.testing.assert_allclose(face.box, [172, 74, 277, 179], atol=6)
    # Eyes and nose as MoveNet Thunder reads them (247,102; 204,102; 224,123).
    np.testing.assert_allclose(face.keypoints[:3], [[204, 102], [247, 102], [224, 126]], atol=6)
    wide = np.zeros((600, 1400, 3), np.uint8)
    wide[40:552, 800:1312] = picture
    (moved,) = finder(wide)
    # Here the face is 19 input pixels wide.
    np.testing.assert_allclose(np.array(moved.box) - [800, 40, 800, 40], face.box, atol=10)


def test_no_face_gives_nothing_and_bad_input_is_refused(finder: FaceFinder) -> None:
    assert finder(np.full((240, 320, 3), 90, np.uint8)) == []
    with pytest.raises(TensorError, match="expected uint8"):
        finder(np.zeros((240, 320), np.uint8))
    with pytest.raises(ArtifactError, match="face finder"):
        FaceFinder.open(zoo.model_path("facemesh"), "onnxruntime", 1)


def test_points_of_a_mirrored_face_are_the_mirrored_points(finder: FaceFinder) -> None:
    """Pictures count from the centre of the first pixel: x + x' is W - 1, not W."""
    picture = cv2.imread(str(PORTRAIT))
    (face,), (turned,) = finder(picture), finder(np.ascontiguousarray(picture[:, ::-1]))
    both = face.keypoints[:, 0] + turned.keypoints[[1, 0, 2, 3, 5, 4], 0]
    assert both.mean() == pytest.approx(picture.shape[1] - 1, abs=0.4)
