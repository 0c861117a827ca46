"""Store pictures and their person masks: JPEG and PNG bytes in plain ``.npz`` shards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prunus.models.training import pictures

BACKGROUND, PERSON, IGNORE = 0, 1, 255


@dataclass(frozen=True)
class MaskImage:
    """Hold RGB uint8 (H,W,3) and labels uint8 (H,W): 0 background, 1 person, 255 not known."""

    image: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class MaskShard:
    """Hold n pictures as JPEG bytes and n label maps as PNG bytes."""

    jpegs: list[bytes]
    pngs: list[bytes]

    def __len__(self) -> int:
        return len(self.jpegs)

    def __getitem__(self, index: int) -> MaskImage:
        """Decode one picture and its labels."""
        return MaskImage(pictures.decode(self.jpegs[index]), pictures.decode(self.pngs[index]))


def pack(images: list[MaskImage], quality: int = 93) -> MaskShard:
    """Compress pictures; label maps are kept exactly."""
    return MaskShard(
        [pictures.encode(m.image, quality=quality) for m in images],
        [pictures.encode(m.labels, ".png") for m in images],
    )


def write_masks(path: Path, shard: MaskShard) -> None:
    """Write a shard under its final name only when it is complete."""
    images, image_lengths = pictures.pack(shard.jpegs)
    labels, label_lengths = pictures.pack(shard.pngs)
    pictures.write_shard(
        path,
        images=images,
        image_lengths=image_lengths,
        labels=labels,
        label_lengths=label_lengths,
    )


def read_masks(folder: Path, pattern: str = "*.npz") -> MaskShard:
    """Read every shard of a folder, in name order, as one.

    Raises:
        PrunusError: the folder holds no shard.
    """
    jpegs: list[bytes] = []
    pngs: list[bytes] = []
    makers = ("rendering.masks", "teachers.masks", "teachers.portraits")
    for path in pictures.shards_of(folder, makers, pattern):
        names = ("images", "image_lengths", "labels", "label_lengths")
        content = pictures.read_shard(path, *names)
        jpegs += pictures.unpack(content["images"], content["image_lengths"])
        pngs += pictures.unpack(content["labels"], content["label_lengths"])
    return MaskShard(jpegs, pngs)
