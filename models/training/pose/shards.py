"""Store person crops on disk: JPEG bytes, keypoints and boxes in plain ``.npz`` shards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prunus.models.training import pictures


@dataclass(frozen=True)
class PeopleShard:
    """Hold n crops: JPEG bytes, keypoints (n,J,3) float32 x, y, weight and boxes (n,4) xyxy."""

    jpegs: list[bytes]
    keypoints: np.ndarray
    boxes: np.ndarray

    def __len__(self) -> int:
        return len(self.jpegs)


def write_shard(path: Path, shard: PeopleShard) -> None:
    """Write a shard under its final name only when it is complete."""
    data, lengths = pictures.pack(shard.jpegs)
    pictures.write_shard(
        path,
        data=data,
        lengths=lengths,
        keypoints=shard.keypoints.astype(np.float32),
        boxes=shard.boxes.astype(np.float32),
    )


def read_shard(path: Path) -> PeopleShard:
    """Read one shard."""
    content = pictures.read_shard(path, "data", "lengths", "keypoints", "boxes")
    jpegs = pictures.unpack(content["data"], content["lengths"])
    return PeopleShard(jpegs, content["keypoints"], content["boxes"])


def read_shards(folder: Path, pattern: str = "*.npz") -> PeopleShard:
    """Read every shard of a folder, in name order, as one.

    Raises:
        PrunusError: the folder holds no shard.
    """
    makers = ("rendering.people", "teachers.crops")
    parts = [read_shard(path) for path in pictures.shards_of(folder, makers, pattern)]
    return PeopleShard(
        [jpeg for part in parts for jpeg in part.jpegs],
        np.concatenate([part.keypoints for part in parts]),
        np.concatenate([part.boxes for part in parts]),
    )
