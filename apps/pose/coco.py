"""Read COCO's labels of people, checked entry by entry."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import SourceError, UsageError

ImageId = int | str

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


# What reading a file of another kind, or with numbers beyond floats, runs into.
_NOT_COCO = (
    AttributeError, IndexError, KeyError, OverflowError, RecursionError, TypeError, ValueError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CocoPeople:
    """A ``person_keypoints`` file.

    Attributes:
        joints: Joint names in the file's order.
        category: Number of the person category.
        images: Image id -> file name of every listed picture, with people or without: a false
            alarm in a picture of nobody counts. In the order in which evaluators sort ids.
        people: Image id -> labelled people, crowds and people without joints left out.
        raw: All people, crowds included (they mask false alarms), completed and checked: each has
            image_id, bbox, area, iscrowd, keypoints and num_keypoints.
        notes: What the file leaves open and how it was read.
    """

    joints: tuple[str, ...]
    category: int
    images: Mapping[ImageId, str]
    people: Mapping[ImageId, Sequence[Person]]
    raw: Sequence[Mapping[str, Any]]
    notes: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many people are labelled."""
        return sum(len(people) for people in self.people.values())

    @staticmethod
    def read(path: str | Path) -> CocoPeople:
        """Read and check a file.

        Raises:
            SourceError: it cannot be read.
            UsageError: it is not a keypoint file, an entry is wrong, or nobody is labelled.
        """
        data = load_json(path)
        try:
            category = _person_category(data["categories"])
            joints, number = tuple(map(str, category["keypoints"])), int(category["id"])
            images = _images(path, data["images"])
            own = [a for a in data["annotations"] if a.get("category_id") == category["id"]]
        except _NOT_COCO as error:
            raise UsageError(
                f"{path} is not a COCO keypoint file ({type(error).__name__}: {error}).",
                "Give a person_keypoints file with images, annotations and categories.",
            ) from None
        raw = [_completed(f"{path}: annotation {a.get('id', k)}", a, joints, images)
               for k, a in enumerate(own)]  # fmt: skip
        people: dict[ImageId, list[Person]] = {}
        for entry in raw:
            if not entry["iscrowd"] and any(entry["keypoints"][2::3]):
                people.setdefault(entry["image_id"], []).append(_person(entry))
        if not people:
            raise UsageError(f"{path} labels nobody.", "Give a file with labelled keypoints.")
        return CocoPeople(joints, number, images, people, raw, _notes(own))

    def as_coco(self, numbers: Mapping[ImageId, int]) -> dict[str, Any]:
        """Return the labels as the evaluator reads them, the person category numbered 1.

        Args:
            numbers: Id -> number of the pictures to evaluate; evaluators take small integers only.
        """
        kept = [e for e in self.raw if e["image_id"] in numbers]
        return {
            "images": [{"id": n, "file_name": self.images[i]} for i, n in numbers.items()],
            "annotations": [
                {**e, "id": k, "category_id": 1, "image_id": numbers[e["image_id"]]}
                for k, e in enumerate(kept, 1)
            ],
            "categories": [{"id": 1, "name": "person", "keypoints": list(self.joints)}],
        }


def load_json(path: str | Path) -> Any:
    """Return the content of a JSON file; raises SourceError or UsageError."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SourceError(f"Cannot read {path}: {reason}.", "Check the path.") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {error}.", "Give a COCO file.") from None


def id_forms(number: Any) -> list[ImageId]:
    """Return the ids that a value may stand for: files write 139 as ``139``, ``139.0``, ``"139"``.

    >>> id_forms("139"), id_forms(139.0), id_forms(None)
    (['139', 139], [139, '139'], [])
    """
    if isinstance(number, str):
        return [number, int(number)] if number.isdecimal() and len(number) < 40 else [number]
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        return []
    whole = isinstance(number, int) or number.is_integer()
    return [int(number), str(int(number))] if whole else []


def _person_category(categories: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    with_joints = [c for c in categories if c.get("keypoints")]
    return next((c for c in with_joints if c.get("name") == "person"), None) or with_joints[0]


def _images(path: str | Path, entries: Sequence[Mapping[str, Any]]) -> dict[ImageId, str]:
    names: dict[ImageId, str] = {}
    for entry in entries:
        name, forms = entry["file_name"], id_forms(entry["id"])
        if not forms:
            raise UsageError(
                f"{path}: the image id {entry['id']!r} of {name} is no whole number and no text.",
                "Number the pictures.",
            )
        number = forms[0]
        if names.setdefault(number, name) != name:
            raise UsageError(
                f"{path}: the image id {number!r} is that of {names[number]} and of {name}.",
                "Give every picture its own id.",
            )
        _stay_inside(path, name)
    try:
        return {i: names[i] for i in sorted(names, key=int)}
    except ValueError:  # text
        return {i: names[i] for i in sorted(names, key=str)}


def _stay_inside(path: str | Path, name: Any) -> None:
    """Refuse a picture outside the folder: labels from elsewhere must not choose what is read."""
    parts = name.replace("\\", "/").split("/") if isinstance(name, str) else [""]
    drive = parts[0].endswith(":")
    if not parts[0] or drive or ".." in parts or "\0" in name or PurePosixPath(name).name == "":
        raise UsageError(
            f"{path}: the file_name {name!r} is not that of a picture inside the folder.",
            "Name pictures by their path below the folder, without '..'.",
        )


def _completed(
    where: str, entry: Mapping[str, Any], joints: Sequence[str], images: Collection[ImageId]
) -> dict[str, Any]:
    """Return one annotation with all that the evaluator reads; raises UsageError by name."""
    image = next((form for form in id_forms(entry.get("image_id")) if form in images), None)
    if image is None:
        raise UsageError(
            f"{where} is of the image {entry.get('image_id')!r}, which the file does not list.",
            "Add the picture to the file's images, or take the entry out.",
        )
    try:
        box = [float(v) for v in entry["bbox"]]
        area = entry.get("area")
        area = _BOX_TO_AREA * box[2] * box[3] if area is None else float(area)
        good = len(box) == 4 and all(map(math.isfinite, (*box, area)))
        good = good and min(*box[2:], area) >= 0
    except _NOT_COCO:
        good = False
    if not good:
        raise UsageError(
            f"{where} has the bbox {entry.get('bbox')} and the area {entry.get('area')}; expected "
            "x, y, width, height and a size, finite and not negative.",
            "Correct this entry or take it out.",
        )
    keypoints = _keypoints(where, entry.get("keypoints"), joints)
    seen = sum(1 for v in keypoints[2::3] if v > 0)
    counted = entry.get("num_keypoints")  # evaluators go by the file's own count
    crowd = entry.get("iscrowd")
    whole = counted is None or (_finite(counted) and counted >= 0 and int(counted) == counted)
    if not whole or not (crowd is None or _finite(crowd)):
        raise UsageError(
            f"{where} has the num_keypoints {counted!r} and the iscrowd {crowd!r}; expected a "
            "number of joints, and 0 or 1.",
            "Correct this entry, or leave both out.",
        )
    return {
        "image_id": image,
        "bbox": box,
        "area": area,
        "iscrowd": int(bool(crowd)),
        "keypoints": keypoints,
        "num_keypoints": seen if counted is None else int(counted),
    }


def _keypoints(where: str, values: Any, joints: Sequence[str]) -> list[float]:
    if values is None or values == []:  # a crowd, or a person of whom only the box is known
        return [0.0] * (3 * len(joints))
    if not isinstance(values, list) or len(values) != 3 * len(joints):
        raise UsageError(
            f"{where} has {len(values) if isinstance(values, list) else values!r} numbers as "
            f"keypoints; expected x, y and visibility of {len(joints)} joints."
        )
    kept: list[float] = []
    for name, x, y, seen in zip(joints, values[::3], values[1::3], values[2::3], strict=True):
        if seen is None or seen == 0:
            kept += (0.0, 0.0, 0.0)  # whatever stands there is not labelled
            continue
        if not all(map(_finite, (x, y, seen))):
            raise UsageError(
                f"{where}: the joint '{name}' is {x}, {y}, visibility {seen}; expected numbers.",
                "Correct the joint, or give it the visibility 0: not labelled.",
            )
        kept += (float(x), float(y), float(seen))
    return kept


def _finite(value: Any) -> bool:
    """Tell a number that a float holds."""
    try:
        return isinstance(value, (int, float)) and math.isfinite(value)
    except OverflowError:
        return False


def _person(entry: Mapping[str, Any]) -> Person:
    table = np.asarray(entry["keypoints"], np.float64).reshape(-1, 3)
    x, y, width, height = entry["bbox"]
    box = np.array([x, y, x + width, y + height])
    return Person(table[:, :2], table[:, 2] > 0, box, entry["area"])


def _notes(entries: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    people = [e for e in entries if not e.get("iscrowd") and any((e.get("keypoints") or [])[2::3])]
    unknown = sum(e.get("area") is None for e in people)
    nothing = sum(e.get("area") == 0 for e in people)
    lines = []
    if unknown:
        lines.append(f"{unknown} people have no area: {_BOX_TO_AREA} of their box is taken")
    if nothing:
        lines.append(f"{nothing} people have the area 0: the evaluator matches nobody with them")
    return tuple(lines)
