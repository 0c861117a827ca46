"""Pictures of a training set: JPEG bytes on disk, batches that a step's number decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from prunus.models.training.data_record import fingerprint
from prunus.runtime.arrays import read_arrays, write_arrays
from prunus.runtime.card.artifact import atomic_path
from prunus.runtime.errors import PrunusError

_MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None] * 255
_STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None] * 255


def normalise(images: torch.Tensor) -> torch.Tensor:
    """Turn RGB uint8 (B,3,H,W) into the ImageNet-normalised float32 the networks expect."""
    return (images.float() - _MEAN.to(images.device)) / _STD.to(images.device)


def softened(image: np.ndarray, scale: float) -> np.ndarray:
    """Return a picture (H,W,3) that a warp may shrink by `scale`: warping alone would alias."""
    import cv2

    return np.asarray(cv2.GaussianBlur(image, (0, 0), 0.4 / scale)) if scale < 0.75 else image


def encode(image: np.ndarray, kind: str = ".jpg", quality: int = 92) -> bytes:
    """Encode RGB uint8 (H,W,3) as JPEG, or labels uint8 (H,W) as PNG.

    Raises:
        PrunusError: the encoder refused the array.
    """
    import cv2

    how = [cv2.IMWRITE_JPEG_QUALITY, quality] if kind == ".jpg" else []
    done, data = cv2.imencode(kind, image[..., ::-1] if image.ndim == 3 else image, how)
    if not done:
        raise PrunusError(
            f"cannot encode an array of shape {image.shape} as {kind}",
            "pass RGB uint8 (H,W,3) or labels uint8 (H,W)",
        )
    return bytes(data.tobytes())


def decode(data: bytes) -> np.ndarray:
    """Decode JPEG bytes to RGB uint8 (H,W,3), PNG bytes to labels uint8 (H,W)."""
    import cv2

    image = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))
    return image[..., ::-1] if image.ndim == 3 else image


def pack(data: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Return byte strings behind each other, uint8, and their lengths, int64."""
    return np.frombuffer(b"".join(data), np.uint8), np.array([len(d) for d in data], np.int64)


def unpack(data: np.ndarray, lengths: np.ndarray) -> list[bytes]:
    """Return the byte strings that `pack` was given."""
    raw, ends = data.tobytes(), np.cumsum(lengths)
    starts = ends - lengths
    return [raw[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]


def read_shard(path: Path, *names: str) -> dict[str, np.ndarray]:
    """Return the arrays of a shard, which must have these names.

    Raises:
        SourceError: it is cut off or damaged, or not such a shard.
    """
    return read_arrays(path, *names, hint="Remove it, and run what made it once more.")


def write_shard(path: Path, **arrays: np.ndarray) -> None:
    """Write a shard under its final name only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        write_arrays(temporary, arrays)


def shards_of(folder: Path, makers: Sequence[str], pattern: str = "*.npz") -> list[Path]:
    """Return the shards of a folder in name order.

    Args:
        folder: Folder of the cache.
        makers: Modules of `prunus.models.training` that fill it, for the message.
        pattern: Which files.

    Raises:
        PrunusError: there is none.
    """
    paths = sorted(folder.glob(pattern))
    if not paths:
        commands = " and ".join(f"`python -m prunus.models.training.{m}`" for m in makers)
        raise PrunusError(
            f"no training shards found: got an empty or missing {folder}",
            f"create them with {commands}",
        )
    return paths


def fill(
    out: Path,
    name: str,
    write: Callable[[Path, int, int], None],
    *,
    count: int,
    seed: int,
    shard: int,
) -> None:
    """Write shards until the folder holds ``count`` pictures of this seed.

    Each shard has its own seed, so that a run that was stopped goes on where it was.

    Args:
        out: The folder.
        name: Beginning of the files' names.
        write: Gets the file, the shard's seed and its number of pictures.
        count: Pictures in all.
        seed: Seed of the set.
        shard: Pictures in a file.
    """
    for index in range((count + shard - 1) // shard):
        path = out / f"{name}-{seed:03d}-{index:04d}.npz"
        if not path.exists():
            write(path, seed * 100_003 + index, min(shard, count - index * shard))


class Shard(Protocol):
    """A set of pictures."""

    def __len__(self) -> int: ...


_S = TypeVar("_S", bound=Shard)


@dataclass(frozen=True)
class Pools(Generic[_S]):
    """Hold the two sources of pictures: rendered ones, exactly labelled, and real ones.

    Attributes:
        synthetic: Rendered pictures.
        real: Pictures with a teacher's labels, None where there are none.
        name: Folder of the real ones.
    """

    synthetic: _S
    real: _S | None
    name: str = "real"

    @classmethod
    def read(cls, folder: Path, read: Callable[[Path], _S], name: str = "real") -> Pools[_S]:
        """Read ``synthetic`` and, if it is there, the folder of real pictures below a cache."""
        real = folder / name
        has_real = real.is_dir() and any(real.glob("*.npz"))
        return cls(read(folder / "synthetic"), read(real) if has_real else None, name)

    def counts(self) -> dict[str, int]:
        """Return the number of pictures of each set."""
        return {
            "synthetic": len(self.synthetic),
            self.name: 0 if self.real is None else len(self.real),
        }

    def hashes(self) -> dict[str, str]:
        """Return the hash of each set: pictures, labels and their order."""
        return {"synthetic": fingerprint(self.synthetic), self.name: fingerprint(self.real)}


Sampler = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]


class StepBatches(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Map a step's number to a batch, so that a resumed run sees what it would have seen.

    Args:
        sample: Draws one picture, uint8 (H,W,3) RGB, and its labels.
        count: Samples in a batch.
        seed: Of the run.
    """

    def __init__(self, sample: Sampler, count: int, seed: int) -> None:
        self._sample, self._count, self._seed = sample, count, seed

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the batch of a step: images (B,3,H,W) and labels (B,...)."""
        import cv2

        cv2.setNumThreads(1)
        rng = np.random.default_rng([self._seed, step])
        images, labels = zip(*(self._sample(rng) for _ in range(self._count)), strict=True)
        stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        return stacked, torch.from_numpy(np.stack(labels))

    def loader(
        self, first: int, last: int, workers: int = 1
    ) -> DataLoader[tuple[torch.Tensor, torch.Tensor]]:
        """Return a loader of the batches of steps ``first`` .. ``last - 1``, prepared ahead."""
        return DataLoader(
            self,
            batch_size=None,
            sampler=range(first, last),
            num_workers=workers,
            prefetch_factor=3 if workers else None,
        )
