"""Assemble the held-out people: rendered, a real clip's last seconds, one portrait."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prunus.models.training.pictures import decode
from prunus.models.training.pose.shards import read_shards
from prunus.models.training.teachers.crops import box_of_joints

# MoveNet Thunder's reading of scikit-image's astronaut (NASA, public domain), 512x512: x, y, score.
_PORTRAIT = (
    (224, 123, 0.60), (247, 102, 0.63), (204, 102, 0.84), (274, 118, 0.74), (176, 111, 0.58),
    (317, 276, 0.83), (104, 267, 0.76), (325, 407, 0.18), (65, 420, 0.55), (294, 497, 0.17),
    (142, 492, 0.43), (264, 506, 0.27), (158, 507, 0.31), *((0, 0, 0),) * 4,
)  # fmt: skip
_SURE = 0.3


@dataclass(frozen=True)
class HeldOut:
    """Hold n people: RGB pictures, boxes (n,4) xyxy, joints (n,17,2), labelled bool (n,17)."""

    name: str
    reference: str
    images: list[np.ndarray]
    boxes: np.ndarray
    joints: np.ndarray
    labelled: np.ndarray


def read_held_out(
    folder: Path, name: str, reference: str, sure: float, limit: int | None = None
) -> HeldOut:
    """Read a cached set; joints whose weight is not above ``sure`` do not count.

    Args:
        folder: Folder of shards.
        name: Name in the table.
        reference: Where the joints come from.
        sure: Least weight or teacher score, exclusive.
        limit: Use this many people, spread evenly; None uses all.
    """
    shard = read_shards(folder)
    count = len(shard) if limit is None else min(limit, len(shard))
    chosen = np.linspace(0, len(shard) - 1, count).astype(int)
    joints = shard.keypoints[chosen]
    return HeldOut(
        name,
        reference,
        [decode(shard.jpegs[i]) for i in chosen],
        shard.boxes[chosen],
        joints[..., :2],
        joints[..., 2] > sure,
    )


def portrait() -> HeldOut | None:
    """Return the astronaut, or None without scikit-image."""
    try:
        from skimage.data import astronaut
    except ImportError:
        return None
    image = np.asarray(astronaut())
    table = np.array(_PORTRAIT, np.float32)
    seen = table[table[:, 2] > 0.1, :2]
    box = np.clip(box_of_joints(seen), 0, 511)
    return HeldOut(
        "portrait",
        "MoveNet Thunder",
        [image],
        box[None],
        table[None, :, :2],
        table[None, :, 2] > _SURE,
    )


def held_out_sets(cache: Path, limit: int | None = None) -> list[HeldOut]:
    """Return every set that the cache and the installed packages allow."""
    sets = []
    for name, folder, reference, sure in (
        ("synthetic", "synthetic_held_out", "exact joints", 0.0),
        ("street", "street_held_out", "MoveNet Thunder", _SURE),
    ):
        path = cache / folder
        if path.is_dir() and any(path.glob("*.npz")):
            sets.append(read_held_out(path, name, reference, sure, limit))
    picture = portrait()
    return sets if picture is None else [*sets, picture]
