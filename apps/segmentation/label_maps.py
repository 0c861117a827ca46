"""Labelled class maps on disk: which file belongs to which picture, and what its numbers mean."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import SourceError, UsageError, nearest
from prunus.runtime.pictures.files import PICTURES, decode, read_bytes
from prunus.runtime.tasks.segmentation.accuracy import IGNORED

Labels = npt.NDArray[np.integer[Any]]
_PNG = b"\x89PNG\r\n\x1a\n"
_GREY, _INDEXED = 0, 3  # PNG's colour types of single numbers, and of those with a palette

# Cityscapes numbers its labels 0..33; these are judged, in this order (its official train ids).
_CITYSCAPES_JUDGED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


@dataclass(frozen=True, slots=True)
class Layout:
    """How a data set names and numbers its labels.

    Attributes:
        picture_ending: What a picture's name ends with, before its format; may be empty.
        label_ending: What stands there in the label's name.
        numbers: What the numbers mean: ``classes`` as they are, ``shifted`` by one with 0 not
            judged (ADE20K), or ``cityscapes``.
    """

    picture_ending: str = ""
    label_ending: str = ""
    numbers: str = "classes"


LAYOUTS = {
    "plain": Layout(),
    "ade20k": Layout(numbers="shifted"),
    "cityscapes": Layout("_leftImg8bit", "_gtFine_labelIds", "cityscapes"),
    "cocostuff": Layout("", "_labelTrainIds"),
}


def layout_of(name: str) -> Layout:
    """Return a layout by name; raises UsageError for an unknown one."""
    if name not in LAYOUTS:
        raise UsageError(
            f"Unknown layout '{name}'{nearest(name, list(LAYOUTS))}.",
            f"Use one of: {', '.join(LAYOUTS)}",
        )
    return LAYOUTS[name]


def label_pairs(pictures: Path, labels: Path, layout: Layout) -> list[tuple[Path, Path]]:
    """Return pictures with their label files, in name order, folders within folders included.

    A label lies in the same place below `labels` as its picture below `pictures` and is a PNG.

    Raises:
        SourceError: a folder is missing, no picture is there, none has labels, or two pictures
            would share theirs.
    """
    for folder in (pictures, labels):
        if not folder.is_dir():
            raise SourceError(f"Not a folder: {folder}.", "Give pictures and --masks as folders.")
    found = sorted(p for p in pictures.rglob("*") if p.suffix.lower() in PICTURES)
    found = [p for p in found if p.stem.endswith(layout.picture_ending)]
    if not found:
        ending = f"*{layout.picture_ending}.jpg or .png" if layout.picture_ending else ".jpg, .png"
        raise SourceError(f"{pictures} holds no pictures.", f"Expected files like {ending}.")
    pairs, owners = [], dict[Path, Path]()
    for path in found:
        stem = path.stem.removesuffix(layout.picture_ending) + layout.label_ending
        label = labels / path.relative_to(pictures).parent / f"{stem}.png"
        if label == path:
            continue
        if owners.setdefault(label, path) != path:
            raise SourceError(
                f"{owners[label]} and {path} would share the labels {label}.",
                "Give the pictures names that differ before their endings.",
            )
        pairs.append((path, label))
    if not any(label.is_file() for _, label in pairs):
        raise SourceError(
            f"None of the {len(found)} pictures of {pictures} has labels in {labels}.",
            f"Expected e.g. {pairs[0][1] if pairs else labels / (found[0].stem + '.png')}.",
        )
    return pairs


def read_labels(path: Path, layout: Layout) -> Labels:
    """Return class numbers (h, w) int32 of a label file; `IGNORED` where nobody judges.

    Raises:
        SourceError: missing, damaged, or a picture in colours.
    """
    numbers = _read_numbers(path).astype(np.int32)
    if layout.numbers == "shifted":
        return np.where(numbers == 0, IGNORED, numbers - 1)
    if layout.numbers == "cityscapes":
        table = np.full(256, IGNORED, np.int32)
        table[list(_CITYSCAPES_JUDGED)] = np.arange(len(_CITYSCAPES_JUDGED))
        return table[np.clip(numbers, 0, 255)]
    return numbers


def _read_numbers(path: Path) -> npt.NDArray[Any]:
    data = read_bytes(path)
    image = decode(_without_palette(data), path, as_is=True)
    if image is None:
        raise SourceError(f"{path} is not a complete PNG.", "Copy the labels again.")
    if image.ndim == 3 and (image[..., :1] == image[..., :3]).all():
        image = image[..., 0]  # grey that was saved as colours
    if image.ndim != 2 or image.dtype.kind != "u":
        raise SourceError(
            f"{path} is a picture in colours; expected one class number per pixel.",
            "Save the labels as a grey or indexed PNG.",
        )
    numbers: npt.NDArray[Any] = image // _grey_step(data)
    return numbers


def _grey_step(data: bytes) -> int:
    """Return what decoders multiply a grey PNG's numbers by: they spread 1, 2, 4 bits to 0..255."""
    if data[:8] != _PNG or len(data) < 33 or data[25] != _GREY or data[24] >= 8:
        return 1
    return int(255 // (2 ** data[24] - 1))


def _without_palette(data: bytes) -> bytes:
    """Return an indexed PNG with the palette 0, 1, 2, ...: decoders give colours, not indices."""
    if data[:8] != _PNG or len(data) < 33 or data[25] != _INDEXED:
        return data
    out, at = [_PNG], 8
    while at + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        if kind == b"PLTE":
            body = bytes(i for i in range(256) for _ in range(3))[: len(body)]
        if kind != b"tRNS":
            checksum = struct.pack(">I", zlib.crc32(kind + body))
            out.append(struct.pack(">I4s", len(body), kind) + body + checksum)
        at += 12 + length
    return b"".join(out)
