"""Read COCO's files: labelled people, and the boxes of a detector."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import SourceError, UsageError

Boxes = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]

# Where a segment's area is unknown, COCO people fill about this share of their box.
_BOX_TO_AREA = 0.53


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """One labelled person.

    Attributes:
        joints: (J, 2) float64 x, y in image pixels.
        visible: (J,) True where labelled.
        box: (4,) float64 x0, y0, x1, y1 in image pixels.
        area: Area of the segment in square pixels.
    """

    joints: npt.NDArray[np.float64]
    visible: npt.NDArray[np.bool_]
    box: npt.NDArray[np.float64]
    area: float


@dataclass(frozen=True, slots=True)
class CocoPeople:
    """A ``person_keypoints`` file.

    Attributes:
        joints: Joint names in the file's order.
        images: Image id -> file name, of pictures with at least one labelled person.
        people: Image id -> labelled people, crowds and people without joints left out.
        raw: The annotations of these images, crowds included (they mask false alarms).
    """

    joints: tuple[str, ...]
    images: Mapping[int, str]
    people: Mapping[int, Sequence[Person]]
    raw: Sequence[Mapping[str, Any]]

    @property
    def count(self) -> int:
        """How many people are labelled."""
        return sum(len(people) for people in self.people.values())

    @staticmethod
    def read(path: str | Path) -> CocoPeople:
        """Read and check a file.

        Raises:
            SourceError: it cannot be read.
            UsageError: it is not a keypoint file, or labels nobody.
        """
        data = _load(path)
        try:
            category = next(c for c in data["categories"] if c.get("keypoints"))
            joints = tuple(category["keypoints"])
            names = {int(i["id"]): str(i["file_name"]) for i in data["images"]}
            own = [a for a in data["annotations"] if a.get("category_id") == category["id"]]
            labelled = [a for a in own if not a.get("iscrowd") and any(a["keypoints"][2::3])]
            people: dict[int, list[Person]] = {}
            for entry in labelled:
                people.setdefault(int(entry["image_id"]), []).append(_person(entry, len(joints)))
            images = {i: names[i] for i in sorted(people)}
        except (KeyError, TypeError, ValueError, StopIteration, AttributeError) as error:
            raise UsageError(
                f"{path} is not a COCO keypoint file ({type(error).__name__}: {error}).",
                "Give a person_keypoints file with images, annotations and categories.",
            ) from None
        if not people:
            raise UsageError(f"{path} labels nobody.", "Give a file with labelled keypoints.")
        return CocoPeople(joints, images, people, [a for a in own if a["image_id"] in images])

    def as_coco(self) -> dict[str, Any]:
        """Return the labels as the evaluator reads them, the person category numbered 1."""
        annotations = []
        for number, entry in enumerate(self.raw, 1):
            filled = {"area": _area(entry), "iscrowd": 0, **entry}
            seen = sum(1 for v in entry.get("keypoints", [])[2::3] if v > 0)
            annotations.append({**filled, "id": number, "category_id": 1, "num_keypoints": seen})
        return {
            "images": [{"id": i, "file_name": name} for i, name in self.images.items()],
            "annotations": annotations,
            "categories": [{"id": 1, "name": "person", "keypoints": list(self.joints)}],
        }


def read_detections(path: str | Path, truth: CocoPeople, category: int = 1) -> dict[int, Boxes]:
    """Read a detector's COCO result file.

    Args:
        path: JSON list of ``image_id``, ``category_id``, ``bbox`` (x, y, width, height), ``score``.
        truth: The labels; boxes on other images are ignored.
        category: Number of the person category in the file.

    Returns:
        Image id -> ((P, 4) corners, (P,) scores).

    Raises:
        SourceError: it cannot be read.
        UsageError: it is not such a file.
    """
    rows: dict[int, list[list[float]]] = {image: [] for image in truth.images}
    try:
        entries = _load(path)
        if not isinstance(entries, list):
            raise TypeError(f"a {type(entries).__name__} instead of a list")
        for entry in entries:
            if entry["category_id"] == category and entry["image_id"] in rows:
                x, y, width, height = (float(v) for v in entry["bbox"])
                if width > 0 and height > 0:
                    row = [x, y, x + width, y + height, float(entry["score"])]
                    rows[entry["image_id"]].append(row)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path} is not a COCO detection result ({type(error).__name__}: {error}).",
            "Give a JSON list of image_id, category_id, bbox and score.",
        ) from None
    tables = {i: np.array(r, np.float64).reshape(len(r), 5) for i, r in rows.items()}
    return {i: (t[:, :4], t[:, 4]) for i, t in tables.items()}


def _load(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_text())
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SourceError(f"Cannot read {path}: {reason}.", "Check the path.") from None
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}.", "Give a COCO file.") from None


def _person(entry: Mapping[str, Any], joints: int) -> Person:
    table = np.asarray(entry["keypoints"], np.float64).reshape(joints, 3)
    x, y, width, height = (float(v) for v in entry["bbox"])
    box = np.array([x, y, x + width, y + height])
    return Person(table[:, :2], table[:, 2] > 0, box, _area(entry))


def _area(entry: Mapping[str, Any]) -> float:
    width, height = entry["bbox"][2:]
    return float(entry.get("area") or _BOX_TO_AREA * width * height)
