"""Keypoints as a COCO result file, streamed to disk and complete whenever it is closed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunus.apps.common.json_list import JsonListWriter
from prunus.apps.io.sources.registry import Frame
from prunus.runtime.errors import SourceError

if TYPE_CHECKING:
    from prunus.runtime.tasks.pose.estimator import Pose

_PERSON = 1  # COCO's category


def image_id(frame: Frame) -> int:
    """Return COCO's id of a frame: the number in a picture's name, else the frame's position.

    >>> image_id(Frame(0, image, "000000000139.jpg", 0))
    139
    """
    stem = Path(frame.name).stem
    return int(stem) if stem.isdecimal() else frame.index


def result_of(frame: Frame, pose: Pose) -> dict[str, Any]:
    """Return one entry of a COCO keypoint result file.

    ``keypoints`` are x, y in image pixels and the joint's score; ``bbox`` is x, y, width, height.
    ``track_id`` and ``file_name`` are additions that evaluators ignore.
    """
    x0, y0, x1, y1 = pose.box
    entry: dict[str, Any] = {
        "image_id": image_id(frame),
        "category_id": _PERSON,
        "keypoints": [round(float(v), 3) for v in pose.keypoints.reshape(-1)],
        "score": round(float(pose.score), 5),
        "bbox": [round(float(v), 2) for v in (x0, y0, x1 - x0, y1 - y0)],
    }
    if pose.track_id >= 0:
        entry["track_id"] = pose.track_id
    if frame.name:
        entry["file_name"] = frame.name
    return entry


class ResultWriter(JsonListWriter):
    """Write poses as they come; the file gets its name, whole and valid, when it is closed."""

    def write(self, frame: Frame, poses: Iterable[Pose]) -> None:
        """Add the people of one frame."""
        for pose in poses:
            self.add(result_of(frame, pose))


def read_boxes(path: Path) -> dict[int, list[tuple[float, float, float, float, float]]]:
    """Read people boxes in COCO's result format: image id -> x0, y0, x1, y1, score.

    Entries of other categories are left out.

    Raises:
        SourceError: not readable, not JSON, or not a list of boxes.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceError(f"Cannot read {path}: {error.strerror}.", "Check the path.") from None
    except ValueError as error:
        raise SourceError(
            f"{path} is not JSON: {error}.", "Expected COCO's result format."
        ) from None
    boxes: dict[int, list[tuple[float, float, float, float, float]]] = {}
    try:
        for entry in raw:
            if entry.get("category_id", _PERSON) != _PERSON:
                continue
            x, y, width, height = map(float, entry["bbox"])
            corners = (x, y, x + width, y + height, float(entry.get("score", 1.0)))
            boxes.setdefault(int(entry["image_id"]), []).append(corners)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"{path} is not a list of boxes in COCO's result format ({error!r}).",
            'Expected [{"image_id": 1, "bbox": [x, y, width, height], "score": 0.9}, ...].',
        ) from None
    return boxes
