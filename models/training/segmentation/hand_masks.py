"""People outlined by hand on real pictures: the only true masks there are here.

`hand_masks.json` holds the outlines alone. The pictures come from packages: frames of OpenCV's
``vtest.avi`` after the part used for training, scikit-image's astronaut (NASA), and the official
portraits of the White House in the source package of ``face_recognition`` 1.3.0.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prunus.models.training.segmentation.shards import BACKGROUND, IGNORE, PERSON, MaskImage
from prunus.models.training.teachers.crops import read_frames

TABLE = Path(__file__).with_name("hand_masks.json")
LONGEST = 512  # the outlines' scale for stills: the picture's longer side
CLIP = "vtest.avi"
_ROOM = 0.35  # of a labelled box's longer side is shown around it


@dataclass(frozen=True)
class HandMask:
    """Hold one outlined picture."""

    source: str
    shot: MaskImage


def hand_masks(folders: list[Path]) -> list[HandMask]:
    """Return the outlined pictures whose source lies in one of the folders or in scikit-image."""
    found = []
    for row in json.loads(TABLE.read_text(encoding="utf-8"))["pictures"]:
        path = _find(row["source"], folders)
        if path is not None:
            shot = _frame(path, row) if row["source"] == CLIP else _still(path, row)
            found.append(HandMask(row["source"], shot))
    return found


def _find(name: str, folders: list[Path]) -> Path | None:
    import importlib.util

    spec = importlib.util.find_spec("skimage")
    own = [Path(spec.origin).parent / "data"] if spec and spec.origin else []
    paths = [folder / name for folder in [*folders, *own]]
    return next((path for path in paths if path.is_file()), None)


def _still(path: Path, row: dict[str, Any]) -> MaskImage:
    import cv2

    image = np.asarray(cv2.imread(str(path)))[..., ::-1]
    scale = LONGEST / max(image.shape[:2])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    return MaskImage(np.ascontiguousarray(image), draw(image.shape[:2], row))


def _frame(path: Path, row: dict[str, Any]) -> MaskImage:
    frame = next(read_frames(path, row["frame"], row["frame"] + 1, 1))
    left, top, right, bottom = row["box"]
    labels = np.full(frame.shape[:2], IGNORE, np.uint8)
    inside = draw(labels.shape, row)
    labels[top:bottom, left:right] = inside[top:bottom, left:right]
    room = int(_ROOM * max(right - left, bottom - top))
    rows = slice(max(top - room, 0), bottom + room)
    columns = slice(max(left - room, 0), right + room)
    return MaskImage(np.ascontiguousarray(frame[rows, columns]), labels[rows, columns])


def draw(size: tuple[int, ...], row: dict[str, Any]) -> np.ndarray:
    """Return labels uint8 (H,W) of a row's outlines."""
    import cv2

    labels = np.full(size, BACKGROUND, np.uint8)
    for outline in row["people"]:
        cv2.fillPoly(labels, [np.array(outline, np.int32)], PERSON)
    for outline in row["unknown"]:
        cv2.fillPoly(labels, [np.array(outline, np.int32)], IGNORE)
    return labels
