"""Cut a steady, upright, grey picture of the mouth out of a clip, as lip-reading networks take it.

The recipe of the LRW line of work (arXiv 2001.08702), which Dolphin follows: landmarks averaged
over twelve frames give the similarity that brings eyes and nose to those of a mean face in a
square of 256 pixels; the crop is the square around the frame's own mouth in it.

What differs: landmarks come from a mesh of 468 points, of which those with the meaning of the 68
usual ones are taken; frames without a face repeat the last landmarks, and until the first face the
crop is plain grey; a mouth at the edge of the aligned square is cut at the edge, never refused.
"""

from __future__ import annotations

from collections import deque
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import UsageError
from prunus.runtime.pictures.crop import check_frame, warp
from prunus.runtime.pictures.opencv import load_cv2
from prunus.runtime.protocols import Stream
from prunus.runtime.tasks.calls import OneStream, in_turn
from prunus.runtime.tasks.faces.mesh import EYE_CORNERS, INNER_LIPS, LIPS, OUTER_LIPS
from prunus.runtime.tasks.separation.card import MouthPreprocess

Frame = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

WINDOW = 12  # frames over which landmarks are averaged
# The base of the nose and the four corners of the eyes (33, 36, 39, 42, 45 of the usual 68), and
# where a mean face has them in a square of 256 pixels.
_ANCHORS = (2, *EYE_CORNERS)
_MEAN_FACE = np.array(
    [(128.9, 137.3), (92.5, 94.4), (112.8, 94.9), (145.5, 94.5), (166.7, 93.6)], np.float64
)
_MEAN_SIDE = 256
_PATCH = 96  # the crop is the middle of a patch of this side, as published
# Grey of skin, lips and the open mouth where lips are drawn.
SKIN, LIP, INSIDE = 150, 105, 45
_SHIFT = 4  # fractional bits of OpenCV's drawing coordinates


def similarity(points: Doubles, target: Doubles) -> Doubles:
    """Return the (2, 3) similarity that maps points to targets with the least squared error.

    Args:
        points: float64 (n, 2).
        target: float64 (n, 2).
    """
    a, b = points - points.mean(0), target - target.mean(0)
    power = max(float((a**2).sum()), 1e-12)
    c = float((a * b).sum()) / power
    s = float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()) / power
    turn = np.array([[c, -s], [s, c]])
    shift = target.mean(0) - turn @ points.mean(0)
    return np.concatenate([turn, shift[:, None]], axis=1)


def align(points: Floats, side: int = _MEAN_SIDE) -> Doubles:
    """Return the (2, 3) matrix from frame pixels to the upright square of `side` pixels.

    Args:
        points: float32 (468, 2 or 3), landmarks in frame pixels.
        side: Of the square.
    """
    anchors = points[list(_ANCHORS), :2].astype(np.float64)
    return similarity(anchors, _MEAN_FACE * (side / _MEAN_SIDE))


def draw_lips(lips: npt.NDArray[np.floating], size: int = 88) -> Frame:
    """Draw lips as a network for drawn lips sees them.

    Args:
        lips: (20, 2) of x, y in pixels of the crop: the outer contour's 12 points, then the inner
            one's 8, in the order of `face_mesh.LIPS`.
        size: Rows and columns of the crop.

    Returns:
        uint8 (size, size): skin, lips over it, the open mouth over those.
    """
    cv2 = load_cv2()
    crop = np.full((size, size), SKIN, np.uint8)
    fixed = np.round(np.clip(lips, -size, 2 * size) * (1 << _SHIFT)).astype(np.int32)
    outer = len(OUTER_LIPS)
    for contour, grey in ((fixed[:outer], LIP), (fixed[outer:], INSIDE)):
        cv2.fillPoly(crop, [contour], grey, cv2.LINE_AA, _SHIFT)
    return crop


@dataclass(slots=True, eq=False)
class MouthCropper(Stream[Frame, list[Frame]]):
    """Crop the mouth of one face, frame by frame; each face needs a cropper of its own.

    Args:
        preprocess: From the card of a ``lips`` graph.
        look_ahead: Frames after the cropped one that count in the average, 0 to 11; crops lag by
            as many. 11 is as published; fewer take past frames instead.

    Example:
        >>> cropper = MouthCropper(card.preprocess)
        >>> crops = [c for f, p in clip for c in cropper.push(f, p)] + cropper.flush()

    Raises:
        UsageError: another look-ahead.
    """

    preprocess: MouthPreprocess
    look_ahead: int = WINDOW - 1
    _frames: deque[Frame] = field(default_factory=deque)
    _points: list[Floats | None] = field(default_factory=list)
    _given: int = 0
    _first: int = 0
    _matrix: Doubles | None = None
    _stream: AbstractContextManager[None] = field(
        default_factory=lambda: OneStream("A mouth cropper")
    )
    sample_rate_hz: int = field(init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.look_ahead < WINDOW:
            raise UsageError(
                f"Got a look-ahead of {self.look_ahead} frames; expected 0 to {WINDOW - 1}."
            )
        self.sample_rate_hz = self.preprocess.frame_rate_hz

    @property
    def latency(self) -> int:
        """Frames by which crops lag."""
        return self.look_ahead

    @in_turn
    def reset(self) -> None:
        """See `Stream`."""
        self._frames.clear()
        self._points.clear()
        self._given = self._first = 0
        self._matrix = None

    @in_turn
    def push(self, frame_bgr: Frame, points: Floats | None = None) -> list[Frame]:
        """Take one frame; return the crops that are complete by now: none or one.

        Args:
            frame_bgr: uint8 (height, width, 3) BGR; it is kept, not copied, until it is cropped.
            points: float32 (468, 2 or 3), landmarks in frame pixels; None: the face is not seen.

        Returns:
            uint8 (size, size) grey crops.

        Raises:
            TensorError: the frame has a wrong shape or dtype.
        """
        check_frame(frame_bgr)
        if points is None and self._points:
            points = self._points[-1]
        self._frames.append(frame_bgr)
        self._points.append(None if points is None else np.array(points[:, :2], np.float32))
        if len(self._frames) <= self.look_ahead:
            return []
        return [self._crop(final=False)]

    @in_turn
    def flush(self) -> list[Frame]:
        """End the clip; return the crops that were waiting. They reuse the last transform."""
        return [self._crop(final=True) for _ in range(len(self._frames))]

    def _crop(self, *, final: bool) -> Frame:
        at = self._given - self._first
        frame, own = self._frames.popleft(), self._points[at]
        if not final or self._matrix is None:
            first = at - (WINDOW - 1 - self.look_ahead)
            near = [p for p in self._points[max(first, 0) : first + WINDOW] if p is not None]
            if near:
                self._matrix = align(np.mean(near, axis=0), self.preprocess.aligned)
        self._given += 1
        while self._given - self._first > WINDOW:  # what no later window needs
            del self._points[0]
            self._first += 1
        size = self.preprocess.size
        if own is None or self._matrix is None:
            grey = round(255 * self.preprocess.mean)
            return np.full((size, size), grey, np.uint8)
        return self._cut(frame, own, self._matrix)

    def _cut(self, frame: Frame, points: Floats, matrix: Doubles) -> Frame:
        lips = points[list(LIPS)].astype(np.float64) @ matrix[:, :2].T + matrix[:, 2]
        size, half = self.preprocess.size, _PATCH // 2
        centre = np.clip(lips.mean(0), half, self.preprocess.aligned - half)
        corner = np.round(centre) - size // 2
        if self.preprocess.drawing == "lips":
            return draw_lips(lips - corner, size)
        cv2 = load_cv2()
        shifted = matrix.copy()
        shifted[:, 2] -= corner
        crop = warp(frame, cv2.invertAffineTransform(shifted), (size, size))
        grey: Frame = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)
        return grey


def mouth_opening(points: Floats) -> float:
    """Return how far the lips are apart, in mouth widths.

    Args:
        points: float32 (468, 2 or 3), landmarks in pixels.
    """
    flat = points[:, :2].astype(np.float64)
    gap = float(np.linalg.norm(flat[INNER_LIPS[2]] - flat[INNER_LIPS[6]]))
    return gap / max(float(np.linalg.norm(flat[OUTER_LIPS[0]] - flat[OUTER_LIPS[6]])), 1e-6)
