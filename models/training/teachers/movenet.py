"""Run MoveNet (Apache-2.0) as the teacher: find people in a frame, read COCO-17 joints of a crop.

Both networks are files of ``prunus export movenet``: a single-pose net (Thunder, Lightning) whose
output is (1,1,17,3) y, x, score relative to a square crop, and the MultiPose heads, whose centre
map lies in 0..1.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prunus.runtime.errors import ArtifactError
from prunus.runtime.session.base import BaseSession
from prunus.runtime.session.base import open as open_session

FLIP_ORDER = (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)
_STRIDE = 4


def _open(path: Path, threads: int) -> tuple[BaseSession, str, tuple[int, int]]:
    if not path.is_file():
        raise ArtifactError(
            f"The teacher {path} does not exist.",
            "Convert it: prunus export movenet PACKAGE --variant thunder -o thunder.onnx",
        )
    session = open_session(path, "onnxruntime", threads=threads)
    entry = session.card.inputs[0]
    return session, entry.name, (entry.shape[1], entry.shape[2])


class SinglePose:
    """Read one person's joints from a square region of an RGB picture."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        self._session, self._input, (self.side, _) = _open(path, threads)

    def read(
        self, image: np.ndarray, centre: np.ndarray, side: float, flip: bool = True
    ) -> np.ndarray:
        """Return joints (17,3) float32: x, y in pixels of ``image``, score 0..1.

        Args:
            image: RGB uint8 (H,W,3).
            centre: x, y (2,) of the region in pixels.
            side: Side of the square region in pixels; what lies outside the picture is black.
            flip: Average with the mirrored crop.
        """
        import cv2

        scale = self.side / side
        shift = (self.side - 1) / 2 - scale * centre
        matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        crop = cv2.warpAffine(image, matrix, (self.side, self.side), flags=cv2.INTER_LINEAR)
        joints = self._run(crop)
        if flip:
            mirrored = self._run(crop[:, ::-1])[list(FLIP_ORDER)]
            mirrored[:, 0] = self.side - 1 - mirrored[:, 0]
            joints = (joints + mirrored) / 2
        joints[:, :2] = (joints[:, :2] - shift) / scale
        return joints.astype(np.float32)

    def read_person(self, image: np.ndarray, box: np.ndarray) -> np.ndarray:
        """Return joints (17,3) of the person in ``box`` (xyxy): a first look, then a closer one."""
        centre = (box[:2] + box[2:]) / 2
        side = 1.25 * float((box[2:] - box[:2]).max())
        first = self.read(image, centre, side)
        sure = first[first[:, 2] > 0.2, :2]
        if len(sure) < 6:
            return first
        low, high = sure.min(0), sure.max(0)
        refined = 1.45 * float((high - low).max())
        if not 0.6 < refined / side < 1.4:  # the first look was about somebody else
            return first
        return self.read(image, (low + high) / 2, refined)

    def _run(self, crop: np.ndarray) -> np.ndarray:
        entry = np.ascontiguousarray(crop[None])
        (out,) = self._session.run({self._input: entry}).values()
        out = out.reshape(17, 3)
        # MoveNet's relative coordinates count from the crop's edge, pixel centres lie half inside.
        return np.stack([out[:, 1] * self.side - 0.5, out[:, 0] * self.side - 0.5, out[:, 2]], 1)


class MultiPose:
    """Find the people of a whole RGB picture with the MultiPose heads."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        self._session, self._input, self.size = _open(path, threads)

    def find(self, image: np.ndarray, least: float = 0.15) -> list[np.ndarray]:
        """Return the coarse joints (17,2) float32 x, y of every person, best first."""
        import cv2

        height, width = self.size
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        entry = small[None]
        heads = self._session.run({self._input: entry})
        score, regress = heads["centre"][0, :, :, 0], heads["regression"]
        peak = cv2.dilate(score, np.ones((5, 5), np.uint8)) <= score
        rows, cols = np.nonzero(peak & (score > least))
        order = np.argsort(-score[rows, cols])
        ratio = np.array([image.shape[1] / width, image.shape[0] / height])
        people = []
        for y, x in zip(rows[order].tolist(), cols[order].tolist(), strict=True):
            offset = regress[0, y, x].reshape(17, 2)
            joints = np.stack([x + offset[:, 1], y + offset[:, 0]], 1)
            people.append(((joints + 0.5) * _STRIDE * ratio).astype(np.float32))
        return people
