"""Landmarks of the bundled portrait, mirrored and turned: no shift of half a pixel."""

from pathlib import Path

import cv2
import numpy as np
import pytest

import prunus.apps
from prunus.models import zoo
from prunus.runtime.tasks.faces.boxes import FaceBox
from prunus.runtime.tasks.faces.mesh import FaceMesh, Square, square_of_box, square_of_points

PICTURE = cv2.imread(str(Path(prunus.apps.__path__[0]) / "media" / "portrait.jpg"))
# The crop has 192 pixels: of this side, a pixel of the crop is two of the frame.
SQUARE = Square(224.0, 125.5, 192.0, 0.0)


@pytest.fixture(scope="module")
def mesh():
    with FaceMesh.open(zoo.model_path("facemesh"), "onnxruntime", 1) as opened:
        yield opened


def test_landmarks_of_a_mirrored_face_are_the_mirrored_ones(mesh: FaceMesh) -> None:
    """Pixels count from their centres: x + x' is W - 1. The landmarks are symmetric as a whole."""
    width = PICTURE.shape[1]
    mirrored = np.ascontiguousarray(PICTURE[:, ::-1])
    (points, score), (other, _) = (
        mesh(PICTURE, [SQUARE])[0],
        mesh(mirrored, [Square(width - 1 - SQUARE.x, SQUARE.y, SQUARE.side, 0.0)])[0],
    )
    assert score > 0.9
    assert (points[:, 0] + other[:, 0]).mean() == pytest.approx(width - 1, abs=0.4)
    assert (points[:, 1] - other[:, 1]).mean() == pytest.approx(0, abs=0.4)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_landmarks_of_a_turned_picture_are_the_turned_ones(mesh: FaceMesh, turns: int) -> None:
    """By quarters, which moves pixels and changes none: the crop is the same to the bit."""
    side, centre = PICTURE.shape[0], (PICTURE.shape[0] - 1) / 2
    expected = mesh(PICTURE, [SQUARE])[0][0][:, :2] - centre
    place = np.array([SQUARE.x, SQUARE.y]) - centre
    for _ in range(turns):  # counter-clockwise, as `np.rot90` turns rows and columns
        expected, place = expected[:, ::-1] * [1, -1], place[::-1] * [1, -1]
    square = Square(*(place + centre), SQUARE.side, -turns * np.pi / 2)
    frame = np.ascontiguousarray(np.rot90(PICTURE, turns))
    assert frame.shape[:2] == (side, side)
    points, _ = mesh(frame, [square])[0]
    np.testing.assert_allclose(points[:, :2], expected + centre, atol=0.1)


def test_the_corners_of_a_square_are_those_of_its_crop() -> None:
    """A crop of n pixels covers its square from -0.5 to n - 0.5 in the crop's own pixels."""
    for size in (192, 96):
        square = Square(50.0, 70.0, 40.0, 0.3)
        matrix = square.to_frame(size)
        edges = np.array([[-0.5, -0.5], [size - 0.5, size - 0.5]])
        a, b = edges @ matrix[:, :2].T + matrix[:, 2]
        np.testing.assert_allclose((a + b) / 2, [50, 70], atol=1e-9)
        assert np.hypot(*(b - a)) == pytest.approx(40 * np.sqrt(2))


def test_a_square_brings_the_eyes_level() -> None:
    eyes = np.array([[100, 100], [140, 140], [0, 0], [0, 0], [0, 0], [0, 0]], np.float32)
    square = square_of_box(FaceBox((80, 80, 180, 160), eyes, 1.0), 1.5)
    assert (square.side, square.turn) == (pytest.approx(150), pytest.approx(np.pi / 4))
    to_frame = square.to_frame(192)
    back = np.linalg.inv(to_frame[:, :2]) @ (eyes[:2] - to_frame[:, 2]).T
    assert back[1, 0] == pytest.approx(back[1, 1])
    middle = to_frame[:, :2] @ [95.5, 95.5] + to_frame[:, 2]
    np.testing.assert_allclose(middle, [130, 120])


def test_square_of_points_agrees_with_its_own_crop() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 100, (468, 3)).astype(np.float32)
    for k, place in zip((33, 133, 362, 263), [(20, 40), (40, 40), (60, 40), (80, 40)], strict=True):
        points[k, :2] = place
    square = square_of_points(points, 1.0)
    assert square.turn == pytest.approx(0)
    assert isinstance(square, Square)
    assert square.side == pytest.approx(np.ptp(points[:, :2], 0).max())


@pytest.mark.parametrize("degrees", [0, 30, -50])
def test_a_square_around_turned_landmarks_is_turned_with_them(degrees) -> None:
    """Worked out the other way: turn a known upright face about a point, with its square."""
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    upright = np.random.default_rng(1).uniform([10, 20], [90, 140], (468, 2))
    upright[0], upright[1] = (10, 20), (90, 140)  # 80 wide, 120 high, about 50, 80
    for k, x in zip((33, 133, 362, 263), (30, 45, 55, 70), strict=True):
        upright[k] = x, 60
    square = square_of_points((upright @ turn.T + [7, 9]).astype(np.float32), 1.5)
    np.testing.assert_allclose([square.x, square.y], turn @ [50, 80] + [7, 9], atol=1e-3)
    assert square.side == pytest.approx(180, abs=1e-3)
    assert square.turn == pytest.approx(angle, abs=1e-5)
