"""Find faces in a frame from the heads of BlazeFace (arXiv 1907.05047).

Each cell of two grids holds anchors; an anchor answers with a logit and with a box and keypoints
measured from the middle of its cell, in input pixels. Answers that overlap are one face: they are
averaged with their scores as weights (section 4.2 of the paper), which trembles less from frame to
frame than keeping the best one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from prunus.runtime.pictures.crop import check_frame
from prunus.runtime.tasks.faces.card import FacesPostprocess
from prunus.runtime.tasks.picture import PictureNetwork
from prunus.runtime.tasks.pose.similarity import box_iou

if TYPE_CHECKING:
    from prunus.runtime.session.base import Session

Floats = npt.NDArray[np.float32]
_CLIP = 80.0  # logits beyond are certain either way; exp would overflow float32


@dataclass(frozen=True, slots=True, eq=False)
class FaceBox:
    """A face as the detector sees it.

    Attributes:
        box: x0, y0, x1, y1 in image pixels, from the forehead to the chin.
        keypoints: float32 (6, 2) of x, y in image pixels: right eye (left in the picture), left
            eye, nose, mouth, right ear, left ear.
        score: 0..1.
    """

    box: tuple[float, float, float, float]
    keypoints: Floats
    score: float


def decode_faces(
    heads: Mapping[str, Floats], size: int, post: FacesPostprocess
) -> tuple[Floats, Floats]:
    """Decode the heads of one frame.

    Args:
        heads: For each stride s ``scores_s`` (1, anchors, 1) logits and ``rows_s`` (1, anchors,
            4 + 2 keypoints) in input pixels.
        size: Height and width of the input.
        post: From the card.

    Returns:
        float32 (faces, 4 + 2 keypoints) of x0, y0, x1, y1, then x, y of each keypoint, in input
        pixels, and float32 (faces,) scores; the most certain first.
    """
    rows, scores = [], []
    for stride, count in zip(post.strides, post.anchors_per_cell, strict=True):
        logits = heads[f"scores_{stride}"].reshape(-1)
        score = 1.0 / (1.0 + np.exp(-np.clip(logits, -_CLIP, _CLIP)))
        index = np.flatnonzero(score >= post.minimum_score)
        cells = size // stride
        cell = index // count
        middle = (np.stack([cell % cells, cell // cells], -1) + 0.5) * stride
        raw = heads[f"rows_{stride}"].reshape(len(logits), -1)[index].copy()
        raw[:, :2] += middle
        raw[:, 4:] += np.tile(middle, (1, raw.shape[1] // 2 - 2)).astype(np.float32)
        half = raw[:, 2:4] / 2
        raw[:, 2:4], raw[:, :2] = raw[:, :2] + half, raw[:, :2] - half
        rows.append(raw)
        scores.append(score[index])
    return _merged(np.concatenate(rows), np.concatenate(scores), post.same_face)


def _merged(rows: Floats, scores: Floats, same: float) -> tuple[Floats, Floats]:
    """Average the answers that overlap the best one left, until none is left."""
    left = np.argsort(-scores, kind="stable")
    faces, best = [], []
    while len(left):
        boxes = rows[left, :4].astype(np.float64)
        alike = box_iou(boxes[:1], boxes)[0] > same
        alike[0] = True  # also a box without area
        group = left[alike]
        faces.append(np.average(rows[group], axis=0, weights=scores[group]))
        best.append(scores[left[0]])
        left = left[~alike]
    width = rows.shape[1]
    return np.array(faces, np.float32).reshape(-1, width), np.array(best, np.float32)


class FaceFinder(PictureNetwork[FacesPostprocess]):
    """Find faces in whole frames; any number of threads may share it.

    Args:
        session: Session of a model whose card says ``faces``.

    Raises:
        ArtifactError: the model is not a face finder.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session, FacesPostprocess, "a face finder", "blazeface_full.onnx")

    def __call__(self, frame_bgr: npt.NDArray[np.uint8]) -> list[FaceBox]:
        """Find faces, the most certain first.

        Args:
            frame_bgr: uint8 (height, width, 3) BGR, any size. Faces below a tenth of the longer
                side are missed.

        Raises:
            TensorError: the frame has a wrong shape or dtype.
        """
        check_frame(frame_bgr)
        heads, scale = self._run_whole(frame_bgr)
        rows, scores = decode_faces(heads, self.preprocess.height, self.postprocess)
        # Rows count from the edge of the first pixel, pictures from its middle.
        points = rows.reshape(len(rows), rows.shape[1] // 2, 2) / scale - 0.5
        boxes = points[:, :2].reshape(-1, 4)
        return [
            FaceBox(
                (float(b[0]), float(b[1]), float(b[2]), float(b[3])),
                k.astype(np.float32),
                float(s),
            )
            for b, k, s in zip(boxes, points[:, 2:], scores, strict=True)
        ]
