"""Landmarks of the bundled portrait, mirrored and turned: no shift of half a pixel."""

from pathlib import Path

import cv2
import numpy as np
import pytest

import prunus.apps
from prunus.models import zoo
from prunus.runtime.tasks.faces.mesh import FaceMesh, Square

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
