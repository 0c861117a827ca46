"""Store pictures and their person masks: JPEG and PNG bytes in plain ``.npz`` shards."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prunus.models.training.pose.shards import decode_jpeg, encode_jpeg
from prunus.runtime.errors import PrunusError

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
        return MaskImage(decode_jpeg(self.jpegs[index]), decode_labels(self.pngs[index]))


def pack(images: list[MaskImage], quality: int = 93) -> MaskShard:
    """Compress pictures; label maps are kept exactly."""
    return MaskShard(
        [encode_jpeg(m.image, quality) for m in images], [encode_labels(m.labels) for m in images]
    )


def encode_labels(labels: np.ndarray) -> bytes:
    """Encode a label map uint8 (H,W) as PNG."""
    import cv2

    done, data = cv2.imencode(".png", labels)
    if not done:
        raise PrunusError(
            f"cannot encode labels of shape {labels.shape} as PNG", "pass uint8 (H,W)"
        )
    return bytes(data.tobytes())


def decode_labels(data: bytes) -> np.ndarray:
    """Decode a label map."""
    import cv2

    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))


def write_masks(path: Path, shard: MaskShard) -> None:
    """Write a shard under its final name only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    with partial.open("wb") as file:
        np.savez(
            file,
            images=np.frombuffer(b"".join(shard.jpegs), np.uint8),
            image_lengths=np.array([len(j) for j in shard.jpegs], np.int64),
            labels=np.frombuffer(b"".join(shard.pngs), np.uint8),
            label_lengths=np.array([len(p) for p in shard.pngs], np.int64),
        )
    os.replace(partial, path)


def read_masks(folder: Path, pattern: str = "*.npz") -> MaskShard:
    """Read every shard of a folder, in name order, as one.

    Raises:
        PrunusError: the folder holds no shard.
    """
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise PrunusError(
            f"no training shards found: got an empty or missing {folder}",
            "create them with `python -m prunus.models.training.rendering.masks` "
            "and `python -m prunus.models.training.teachers.masks`",
        )
    jpegs: list[bytes] = []
    pngs: list[bytes] = []
    for path in paths:
        with np.load(path) as content:
            jpegs += _split(content["images"], content["image_lengths"])
            pngs += _split(content["labels"], content["label_lengths"])
    return MaskShard(jpegs, pngs)


def _split(data: np.ndarray, lengths: np.ndarray) -> list[bytes]:
    raw, ends = data.tobytes(), np.cumsum(lengths)
    starts = ends - lengths
    return [raw[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
