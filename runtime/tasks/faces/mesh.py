"""Read 468 landmarks of a face in an upright square around it (arXiv 1907.06724).

The square is 1.5 times as large as the face box and turned so that the eyes lie level: a square
that is too tight, or a tall one, puts the lips on the nose. The network answers in pixels of the
square; the way back is the same similarity that cut it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from prunus.runtime.pictures.crop import check_frame, warp
from prunus.runtime.pictures.opencv import in_colours
from prunus.runtime.tasks.faces.boxes import FaceBox
from prunus.runtime.tasks.faces.card import FaceMeshPostprocess
from prunus.runtime.tasks.picture import PictureNetwork

if TYPE_CHECKING:
    from prunus.runtime.session.base import Session

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

LANDMARKS = 468
# Those of the mouth, in the order of the 68-point scheme's mouth (48..67): the outer contour
# from the mouth's corner at the left of the picture over the upper lip, then the inner one.
OUTER_LIPS = (61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181)
INNER_LIPS = (78, 82, 13, 312, 308, 317, 14, 87)
LIPS = OUTER_LIPS + INNER_LIPS
# Corners of the eyes from left to right in the picture.
EYE_CORNERS = (33, 133, 362, 263)


@dataclass(frozen=True, slots=True, eq=False)
class Square:
    """A turned square in the frame.

    Attributes:
        x: Column of its middle in pixels.
        y: Row of its middle.
        side: Side in pixels.
        turn: Clockwise turn in radians as seen in the picture; 0 is upright.
    """

    x: float
    y: float
    side: float
    turn: float

    def to_frame(self, size: int) -> Doubles:
        """Return the (2, 3) matrix from pixels of a crop of `size` to pixels of the frame."""
        scale = self.side / size
        c, s = scale * np.cos(self.turn), scale * np.sin(self.turn)
        middle = (size - 1) / 2
        return np.array([
            [c, -s, self.x - (c - s) * middle],
            [s, c, self.y - (s + c) * middle],
        ])  # fmt: skip


def square_of_box(face: FaceBox, padding: float) -> Square:
    """Return the square for a detected face: upright by its eyes, `padding` times its box."""
    x0, y0, x1, y1 = face.box
    (ax, ay), (bx, by) = face.keypoints[0], face.keypoints[1]
    turn = float(np.arctan2(by - ay, bx - ax))
    return Square((x0 + x1) / 2, (y0 + y1) / 2, max(x1 - x0, y1 - y0) * padding, turn)


def square_of_points(points: Floats, padding: float) -> Square:
    """Return the square for landmarks (468, 2 or 3) in pixels, as `square_of_box` would."""
    flat = points[:, :2].astype(np.float64)
    left, right = flat[list(EYE_CORNERS[:2])].mean(0), flat[list(EYE_CORNERS[2:])].mean(0)
    turn = float(np.arctan2(*(right - left)[::-1]))
    c, s = np.cos(turn), np.sin(turn)
    upright = flat @ np.array([[c, -s], [s, c]])
    low, high = upright.min(0), upright.max(0)
    x, y = (low + high) / 2 @ np.array([[c, s], [-s, c]])
    return Square(float(x), float(y), float((high - low).max()) * padding, turn)


class FaceMesh(PictureNetwork[FaceMeshPostprocess]):
    """Read landmarks in squares; any number of threads may share it.

    Args:
        session: Session of a model whose card says ``face_mesh``.

    Raises:
        ArtifactError: the model is no face mesh.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session, FaceMeshPostprocess, "a face mesh", "facemesh.onnx")

    def __call__(
        self, frame_bgr: npt.NDArray[np.uint8], squares: Sequence[Square]
    ) -> list[tuple[Floats, float]]:
        """Read one face per square, in order.

        Args:
            frame_bgr: uint8 (height, width, 3) BGR.
            squares: Where the faces are; parts outside the frame are black.

        Returns:
            For each the landmarks float32 (468, 3) of x, y in frame pixels and depth on the same
            scale, and how sure the network is that the square shows a face, 0..1.

        Raises:
            TensorError: the frame has a wrong shape or dtype.
        """
        check_frame(frame_bgr)
        return [self._read(frame_bgr, square) for square in squares]

    def _read(self, frame: npt.NDArray[np.uint8], square: Square) -> tuple[Floats, float]:
        size = self.preprocess.height
        matrix = square.to_frame(size)
        crop = warp(frame, matrix, (size, size))
        with self._buffers.borrowed() as buffer:
            buffer[0] = in_colours(crop, self.preprocess.colour == "rgb")
            found = self._run(buffer)
        raw = found["points"].reshape(-1, 3).astype(np.float64)
        # The network counts from the middle of the first pixel: over mirrored crops x + x' is
        # 190.8 +- 0.2 of 192 pixels.
        flat = raw[:, :2] @ matrix[:, :2].T + matrix[:, 2]
        depth = raw[:, 2:] * (square.side / size)
        points = np.concatenate([flat, depth], axis=1).astype(np.float32)
        return points, float(found["face"].reshape(-1)[0])
