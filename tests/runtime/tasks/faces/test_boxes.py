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


def _heads(columns: int = 8) -> dict[str, np.ndarray]:
    heads = {}
    for stride, count in ((16, 512), (32, 384)):
        heads[f"scores_{stride}"] = np.full((1, count, 1), -200.0, np.float32)
        heads[f"rows_{stride}"] = np.zeros((1, count, columns), np.float32)
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


class _Painted:
    """A network that answers with the one bright rectangle, exactly, as the true one counts.

    Positions count from the edge of the first pixel of the input: a rectangle that begins with
    pixel 3 begins at 3.0.
    """

    def __init__(self, card) -> None:
        self.card = card

    def run(self, feeds):
        (values,) = feeds.values()
        light = values[0].mean(axis=2) / 255
        sides = [light.max(axis=0).sum(), light.max(axis=1).sum()]
        at = np.arange(len(light)) + 0.5
        middle = [(light.sum(axis=k) * at).sum() / light.sum() for k in (0, 1)]
        heads = _heads(columns=16)
        corners = [m + s * sides[k] / 2 for s in (-1, 1) for k, m in enumerate(middle)]
        row, column = 4, 3  # any cell will do
        zero = np.array([(column + 0.5) * 32, (row + 0.5) * 32])
        points = np.array([corners[:2], corners[2:], *[middle] * 4]) - zero
        heads["scores_32"][0, (row * 8 + column) * 6] = 5.0
        heads["rows_32"][0, (row * 8 + column) * 6] = [
            *(middle - zero), *sides, *points.reshape(-1)
        ]  # fmt: skip
        return heads


@pytest.mark.parametrize(
    ("width", "height", "x0", "y0", "side"),
    [(256, 256, 64, 40, 100), (512, 512, 120, 64, 200), (640, 480, 200, 120, 150),
     (360, 640, 40, 300, 160), (128, 96, 30, 20, 60)],
)  # fmt: skip
@pytest.mark.parametrize("mirrored", [False, True])
def test_frames_of_any_size_give_the_place_of_the_face_in_its_own_pixels(
    finder: FaceFinder, width, height, x0, y0, side, mirrored
) -> None:
    """Pixels x0 to x0 + side - 1 reach from x0 - 0.5 to x0 + side - 0.5, mirrored or not."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[y0 : y0 + side, x0 : x0 + side] = 255
    if mirrored:
        frame, x0 = np.ascontiguousarray(frame[:, ::-1]), width - side - x0
    (face,) = FaceFinder(_Painted(finder.session.card))(frame)
    expected = np.array([x0, y0, x0 + side, y0 + side]) - 0.5
    # A pixel on the edge of the shrunk rectangle is rounded to 8 bits.
    np.testing.assert_allclose(face.box, expected, atol=0.03)
    np.testing.assert_allclose(face.keypoints[:2].reshape(-1), expected, atol=0.03)
    np.testing.assert_allclose(face.keypoints[2], (expected[:2] + expected[2:]) / 2, atol=0.03)


def test_points_of_a_mirrored_face_are_the_mirrored_points(finder: FaceFinder) -> None:
    """Pictures count from the centre of the first pixel: x + x' is W - 1, not W."""
    picture = cv2.imread(str(PORTRAIT))
    (face,), (turned,) = finder(picture), finder(np.ascontiguousarray(picture[:, ::-1]))
    both = face.keypoints[:, 0] + turned.keypoints[[1, 0, 2, 3, 5, 4], 0]
    assert both.mean() == pytest.approx(picture.shape[1] - 1, abs=0.4)
