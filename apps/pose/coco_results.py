"""COCO result files: keypoints streamed to disk, and a detector's boxes read back."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from prunus.apps.common.json_list import JsonListWriter
from prunus.apps.io.sources.registry import Frame
from prunus.apps.pose.coco import ImageId, id_forms, load_json
from prunus.runtime.errors import UsageError

if TYPE_CHECKING:
    from prunus.runtime.tasks.pose.estimator import Pose

Boxes = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
_PERSON = 1  # COCO's category


def result_of(frame: Frame, pose: Pose) -> dict[str, Any]:
    """Return one entry of a COCO keypoint result file.

    ``keypoints`` are x, y in image pixels and the joint's score; ``bbox`` is x, y, width, height.
    ``track_id``, ``age_s`` (how old the joints are), ``seconds`` and ``file_name`` are additions
    that evaluators ignore; `read_boxes` goes by the name first.
    """
    x0, y0, x1, y1 = pose.box
    entry: dict[str, Any] = {
        "image_id": frame.image_id,
        "category_id": _PERSON,
        "keypoints": [round(float(v), 3) for v in pose.keypoints.reshape(-1)],
        "score": round(float(pose.score), 5),
        "bbox": [round(float(v), 2) for v in (x0, y0, x1 - x0, y1 - y0)],
    }
    if pose.track_id >= 0:
        entry["track_id"] = pose.track_id
        entry["age_s"] = round(pose.age_s, 4)
    if frame.seconds is not None:
        entry["seconds"] = round(frame.seconds, 6)
    if frame.name:
        entry["file_name"] = frame.name
    return entry


class ResultWriter(JsonListWriter):
    """Write poses as they come: a COCO list, lines of JSON, or a table with a column per value."""

    def write(self, frame: Frame, poses: Iterable[Pose]) -> None:
        """Add the people of one frame."""
        for pose in poses:
            self.add(result_of(frame, pose))


def read_boxes(
    path: str | Path, pictures: Mapping[ImageId, str], category: int | None = None
) -> dict[ImageId, Boxes]:
    """Read people's boxes from a detector's COCO result file.

    A box belongs to the picture that its ``file_name`` names, whatever its ``image_id``; without
    a name, to the picture of that id. Boxes of other pictures and other categories are left out.

    Args:
        path: JSON list of ``image_id`` or ``file_name``, ``bbox`` (x, y, width, height), and, if
            at hand, ``score`` and ``category_id``.
        pictures: Id -> file name; empty for a video, whose frames have numbers only.
        category: Number of the person category; None: 0 in a file that counts from 0, else 1.

    Returns:
        Image id -> ((P, 4) float64 corners x0, y0, x1, y1, (P,) float64 scores).

    Raises:
        SourceError: it cannot be read.
        UsageError: it is not such a file, or has boxes but none of people in these pictures.
    """
    entries = load_json(path)
    try:
        if not isinstance(entries, list):
            raise TypeError(f"a {type(entries).__name__} instead of a list")
        found = Counter(e["category_id"] for e in entries if "category_id" in e)
        person = category if category is not None else (0 if 0 in found else 1)
        own = [e for e in entries if e.get("category_id", person) == person]
        rows = [_row(k, e) for k, e in enumerate(own)]
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path} is not a COCO detection result ({type(error).__name__}: {error}).",
            "Give a JSON list of image_id, category_id, bbox and score.",
        ) from None
    if entries and not own:
        raise UsageError(
            f"{path} has boxes of the categories {', '.join(map(str, sorted(found, key=str)))} "
            f"only; expected some of category {person}, people.",
            "Number people in the boxes as the labels do.",
        )
    belongs = _Belongs(path, pictures)
    tables: dict[ImageId, list[list[float]]] = {}
    for entry, row in zip(own, rows, strict=True):
        image = belongs.image_of(entry)
        if image is not None and row[2] > row[0] and row[3] > row[1]:
            tables.setdefault(image, []).append(row)
    if own and not belongs.matched:
        first = own[0].get("file_name") or f"image_id {own[0].get('image_id')!r}"
        raise UsageError(
            f"None of the {len(own)} boxes of {path} belongs to one of the pictures (the first: "
            f"{first}).",
            "Give boxes of these pictures, with their file_name or image_id.",
        )
    return {i: (t[:, :4], t[:, 4]) for i, t in ((i, np.array(r)) for i, r in tables.items())}


class _Belongs:
    """Which picture an entry is about."""

    def __init__(self, path: str | Path, pictures: Mapping[ImageId, str]) -> None:
        self.path, self.pictures, self.matched = path, pictures, 0
        self._of: dict[str, list[ImageId]] = {}
        for number, name in pictures.items():
            self._of.setdefault(name, []).append(number)
        # Folders in front of a name differ between machines; unique last parts are enough.
        last = Counter(PurePosixPath(name).name for name in self._of)
        parts = {PurePosixPath(name).name: name for name in self._of}
        self._short = {part: name for part, name in parts.items() if last[part] == 1}
        self._named: dict[str, str] = {}

    def image_of(self, entry: Mapping[str, Any]) -> ImageId | None:
        """Return the id of the picture; None where it is not one of these."""
        name, forms = entry.get("file_name"), id_forms(entry.get("image_id"))
        image: ImageId | None
        if not self.pictures:  # any frame of a video
            image = next((form for form in forms if isinstance(form, int)), None)
        else:
            named = isinstance(name, str) and name != ""
            among = self._by_name(str(name)) if named else self.pictures
            image = next((form for form in forms if form in among), None)
            if image is None and named and len(among) == 1:
                (image,) = among
        self.matched += image is not None
        return image

    def _by_name(self, name: str) -> list[ImageId]:
        own = name if name in self._of else self._short.get(PurePosixPath(name).name)
        if own is None:
            return []
        if self._named.setdefault(own, name) != name:
            raise UsageError(
                f"{self.path} has boxes for {self._named[own]} and {name}; the picture {own} could "
                "be either.",
                "Give boxes of these pictures only.",
            )
        return self._of[own]


def _row(number: int, entry: Mapping[str, Any]) -> list[float]:
    x, y, width, height = (float(v) for v in entry["bbox"])
    row = [x, y, x + width, y + height, float(entry.get("score", 1.0))]
    if not all(map(math.isfinite, row)):
        raise ValueError(f"box {number} of people is not finite: {entry['bbox']}")
    return row
