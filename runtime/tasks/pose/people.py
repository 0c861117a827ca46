"""Find people in a frame from the dense heads of MoveNet MultiPose.

The network (CenterNet family, arXiv 1904.07850) answers on a grid of cells: how likely a cell is
the centre of a person, where each joint lies as seen from there, where joints are at all, and by
how much a cell is off. Decoding starts from the peaks of the centre map; each joint then moves to
the cell that is both a likely joint and near the place the centre points at:

    weight(cell) = heat(cell) * exp(-distance(cell, guess)^2 / (0.3 * min(rows, columns)))

which is what the original graph does for six people, here for any number and only inside the
box of each person.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from prunus.runtime.pictures.crop import check_frame
from prunus.runtime.tasks.picture import PictureNetwork
from prunus.runtime.tasks.pose.card import PeoplePostprocess
from prunus.runtime.tasks.pose.estimator import Pose
from prunus.runtime.tasks.pose.movenet import PIXEL_SHIFT

if TYPE_CHECKING:
    from prunus.runtime.session.base import Session

Floats = npt.NDArray[np.float32]

_SPREAD = 0.3  # of the shorter side of the grid, in cells squared (original graph)
_SEEN = 0.127  # joints below do not count for the score of a person (original graph)
_REACH = 2  # cells around a centre in which it must be the highest


@dataclass(frozen=True, slots=True)
class People:
    """Decoded people in input pixels, best first.

    Attributes:
        keypoints: float32 (people, joints, 3) of x, y and score.
        boxes: float32 (people, 4) of x0, y0, x1, y1.
        scores: float32 (people,), centre times mean of the visible joints, 0..1.
        centres: float32 (people,), the centre alone, 0..1.
    """

    keypoints: Floats
    boxes: Floats
    scores: Floats
    centres: Floats


def decode_multipose(
    heads: Mapping[str, Floats], stride: int, maximum_people: int, minimum_centre: float = 0.0
) -> People:
    """Decode the heads of one frame.

    Args:
        heads: ``centre`` (1, rows, columns, 1) and ``heatmaps`` (..., joints) in 0..1;
            ``regression`` and ``offsets`` (..., 2 joints) as y, x in cells; ``box_scale`` and
            ``box_offset`` (..., 2) as y, x in cells.
        stride: Input pixels per cell.
        maximum_people: At most this many come out.
        minimum_centre: Lowest value of a centre peak.

    Returns:
        People sorted by their centre, highest first.
    """
    centre, heat = heads["centre"][0, :, :, 0], heads["heatmaps"][0]
    rows, columns, values = _peaks(centre, maximum_people, minimum_centre)
    count, joints = len(rows), heat.shape[-1]
    cell = np.stack([rows, columns], axis=-1).astype(np.float32)
    guess = cell[:, None] + heads["regression"][0, rows, columns].reshape(count, joints, 2)
    middle = cell + heads["box_offset"][0, rows, columns]
    half = np.maximum(heads["box_scale"][0, rows, columns], 0) / 2
    limit = np.array(centre.shape, np.float32)
    low, high = np.clip(middle - half, 0, limit), np.clip(middle + half, 0, limit)
    offsets = heads["offsets"][0].reshape(*centre.shape, joints, 2)
    keypoints = np.empty((count, joints, 3), np.float32)
    for i in range(count):
        keypoints[i] = _joints(heat, offsets, guess[i], low[i], high[i])
    keypoints[..., :2] *= stride
    seen = keypoints[..., 2] > _SEEN
    mean = (keypoints[..., 2] * seen).sum(1) / np.maximum(seen.sum(1), 1)
    boxes = np.concatenate([low[:, ::-1], high[:, ::-1]], axis=1) * np.float32(stride)
    return People(keypoints, boxes, (values * mean).astype(np.float32), values)


def _peaks(
    centre: Floats, maximum: int, minimum: float
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Floats]:
    """Return rows, columns and values of the cells that are the highest of their neighbourhood."""
    highest = centre
    for axis in (0, 1):  # the maximum over a square is that over rows, then over columns
        pad = [(0, 0), (0, 0)]
        pad[axis] = (_REACH, _REACH)
        padded = np.pad(highest, pad, constant_values=-np.inf)
        length = centre.shape[axis]
        shifted = [np.take(padded, range(k, k + length), axis) for k in range(2 * _REACH + 1)]
        highest = np.max(shifted, axis=0)
    rows, columns = np.nonzero((centre >= highest) & (centre >= minimum))
    values = centre[rows, columns]
    best = np.argsort(-values, kind="stable")[:maximum]
    return rows[best], columns[best], values[best]


def _joints(heat: Floats, offsets: Floats, guess: Floats, low: Floats, high: Floats) -> Floats:
    """Move each guessed joint of a person to the best cell of the box: (joints, 3) x, y, score."""
    (y0, x0), (y1, x1) = np.ceil(low).astype(int), np.ceil(high).astype(int)
    if y1 <= y0 or x1 <= x0:
        return np.concatenate([guess[:, ::-1], np.zeros((len(guess), 1), np.float32)], axis=1)
    spread = np.float32(_SPREAD * min(heat.shape[:2]))
    # exp(-(dy^2 + dx^2)) is a product of one factor per row and one per column.
    down = np.exp(-((np.arange(y0, y1, dtype=np.float32)[:, None] - guess[:, 0]) ** 2) / spread)
    across = np.exp(-((np.arange(x0, x1, dtype=np.float32)[:, None] - guess[:, 1]) ** 2) / spread)
    weight = heat[y0:y1, x0:x1] * down[:, None] * across[None]
    flat = weight.reshape(-1, len(guess))
    index = flat.argmax(0)
    joint = np.arange(len(guess))
    y, x = y0 + index // (x1 - x0), x0 + index % (x1 - x0)
    shift = offsets[y, x, joint]
    return np.stack([x + shift[:, 1], y + shift[:, 0], flat[index, joint]], axis=1).astype(
        np.float32
    )


class PeopleFinder(PictureNetwork[PeoplePostprocess]):
    """Find people in whole frames; any number of threads may share it.

    Args:
        session: Session of a model whose card says ``movenet_multipose``.
        minimum_score: People below are dropped.

    Raises:
        ArtifactError: the model is not a people finder.
    """

    def __init__(self, session: Session, minimum_score: float = 0.12) -> None:
        super().__init__(session, PeoplePostprocess, "a people finder", "movenet_multipose.onnx")
        self.minimum_score = minimum_score

    def __call__(self, frame_bgr: npt.NDArray[np.uint8]) -> list[Pose]:
        """Find people, best first.

        Args:
            frame_bgr: uint8 (height, width, 3) BGR, any size.

        Returns:
            Poses in image pixels with coarse joints; their boxes enclose the person.

        Raises:
            TensorError: the frame has a wrong shape or dtype.
        """
        check_frame(frame_bgr)
        heads, scale = self._run_whole(frame_bgr)
        post = self.postprocess
        people = decode_multipose(heads, post.stride, post.maximum_people, self.minimum_score)
        return [
            p for p in _to_image(people, scale, frame_bgr.shape) if p.score >= self.minimum_score
        ]


def _to_image(people: People, scale: npt.NDArray[np.float64], shape: tuple[int, ...]) -> list[Pose]:
    keypoints = people.keypoints.copy()
    # From heads to the input's pixel edges, then to image pixels, which count from their centre;
    # boxes keep counting from the edge, as those of COCO do: a mirrored box is W - x.
    keypoints[..., :2] = (keypoints[..., :2] + (0.5 - PIXEL_SHIFT)) / scale - 0.5
    boxes = (people.boxes + (0.5 - PIXEL_SHIFT)) / np.tile(scale, 2)
    boxes = np.clip(boxes, 0, np.tile([shape[1], shape[0]], 2))
    return [
        Pose(k.astype(np.float32), (float(b[0]), float(b[1]), float(b[2]), float(b[3])), float(s))
        for k, b, s in zip(keypoints, boxes, people.scores, strict=True)
    ]
