"""Store person crops on disk: JPEG bytes, keypoints and boxes in plain ``.npz`` shards."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prunus.runtime.errors import PrunusError


@dataclass(frozen=True)
class PeopleShard:
    """Hold n crops: JPEG bytes, keypoints (n,J,3) float32 x, y, weight and boxes (n,4) xyxy."""

    jpegs: list[bytes]
    keypoints: np.ndarray
    boxes: np.ndarray

    def __len__(self) -> int:
        return len(self.jpegs)


def encode_jpeg(image: np.ndarray, quality: int = 92) -> bytes:
    """Encode an RGB uint8 (H,W,3) image.

    Raises:
        PrunusError: the encoder refused the array.
    """
    import cv2

    done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise PrunusError(
            f"cannot encode an array of shape {image.shape} as JPEG", "pass RGB uint8 (H,W,3)"
        )
    return bytes(data.tobytes())


def decode_jpeg(data: bytes) -> np.ndarray:
    """Decode JPEG bytes to RGB uint8 (H,W,3)."""
    import cv2

    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))[..., ::-1]


def write_shard(path: Path, shard: PeopleShard) -> None:
    """Write a shard under its final name only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lengths = np.array([len(j) for j in shard.jpegs], np.int64)
    partial = path.with_name(path.name + ".part")
    with partial.open("wb") as file:
        np.savez(
            file,
            data=np.frombuffer(b"".join(shard.jpegs), np.uint8),
            lengths=lengths,
            keypoints=shard.keypoints.astype(np.float32),
            boxes=shard.boxes.astype(np.float32),
        )
    os.replace(partial, path)


def read_shard(path: Path) -> PeopleShard:
    """Read one shard."""
    with np.load(path) as content:
        data, ends = content["data"].tobytes(), np.cumsum(content["lengths"])
        starts = ends - content["lengths"]
        jpegs = [data[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
        return PeopleShard(jpegs, content["keypoints"], content["boxes"])


def read_shards(folder: Path, pattern: str = "*.npz") -> PeopleShard:
    """Read every shard of a folder, in name order, as one.

    Raises:
        PrunusError: the folder holds no shard.
    """
    parts = [read_shard(path) for path in sorted(folder.glob(pattern))]
    if not parts:
        raise PrunusError(
            f"no training shards found: got an empty or missing {folder}",
            "create them with `python -m prunus.models.training.rendering.people` "
            "and `python -m prunus.models.training.teachers.crops`",
        )
    return PeopleShard(
        [jpeg for part in parts for jpeg in part.jpegs],
        np.concatenate([part.keypoints for part in parts]),
        np.concatenate([part.boxes for part in parts]),
    )
