"""A folder of pictures or arrays as batches of a network's input; the step's number decides all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prunus.models.training.data_record import fingerprint
from prunus.runtime.arrays import read_array
from prunus.runtime.errors import SourceError, UsageError
from prunus.runtime.pictures.files import PICTURES, read_picture
from prunus.runtime.pictures.opencv import load_cv2


@dataclass(frozen=True)
class InputFolder:
    """Files that each give one input.

    Attributes:
        folder: Where they lie.
        files: Pictures, and ``.npy`` arrays of exactly the input's shape, in name order.
        shape: Of one input, without the batch: (3, H, W) for pictures.
        mean: Of the red, green and blue values of pictures, after division by 255.
        std: Their standard deviation.
    """

    folder: Path
    files: tuple[Path, ...]
    shape: tuple[int, ...]
    mean: Sequence[float]
    std: Sequence[float]

    @classmethod
    def read(
        cls, folder: Path, shape: tuple[int, ...], mean: Sequence[float], std: Sequence[float]
    ) -> InputFolder:
        """List a folder and what lies below it.

        Raises:
            UsageError: nothing there, pictures for a network that takes none, or wrong constants.
        """
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise UsageError(
                f"Got mean {tuple(mean)} and deviation {tuple(std)} of pictures; expected three "
                "numbers each, deviations above 0."
            )
        found = sorted(folder.rglob("*")) if folder.is_dir() else []
        files = tuple(p for p in found if p.suffix.lower() in PICTURES or p.suffix == ".npy")
        if not files:
            raise UsageError(
                f"No training data: {folder} holds no picture and no .npy array.",
                f"Name a folder of {', '.join(PICTURES)} pictures or of arrays "
                f"{list(shape)} with --data.",
            )
        first = next((p for p in files if p.suffix != ".npy"), None)
        if first is not None and (len(shape) != 3 or shape[0] != 3):
            raise UsageError(
                f"{first} is a picture, and the network takes {list(shape)}.",
                "Store its inputs as .npy arrays of that shape.",
            )
        return cls(folder, files, shape, mean, std)

    def fingerprint(self) -> str:
        """Return a hash of the files' names below the folder, and of their sizes.

        Not of their contents: there may be more of them than a run ever reads.
        """
        sizes = [(p.relative_to(self.folder).as_posix(), p.stat().st_size) for p in self.files]
        return fingerprint(sizes)

    def load(self, path: Path, rng: np.random.Generator) -> Tensor:
        """Return one input, float32; a picture is cropped and mirrored at random.

        Raises:
            UsageError: a file that cannot be read, an array of another shape or with values that
                are not finite.
        """
        return self._array(path) if path.suffix == ".npy" else self._picture(path, rng)

    def _array(self, path: Path) -> Tensor:
        array = read_array(path, hint="Remove the file, or save it again with numpy.save.")
        if array.shape != self.shape or array.dtype.kind not in "fiu":
            raise UsageError(
                f"{path} holds {array.dtype} {list(array.shape)}; expected numbers "
                f"{list(self.shape)}."
            )
        array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise UsageError(
                f"{path} holds values that are not finite.", "Remove or repair the file."
            )
        return torch.from_numpy(array)

    def _picture(self, path: Path, rng: np.random.Generator) -> Tensor:
        cv2 = load_cv2()
        try:
            image = read_picture(path)
        except SourceError as error:
            raise UsageError(
                f"Cannot read the picture {path}: {error.message}", "Remove or repair the file."
            ) from None
        height, width = self.shape[1:]
        share = rng.uniform(0.5, 1.0)  # of the largest crop that has the input's form
        scale = min(image.shape[0] / height, image.shape[1] / width) * share
        high, wide = max(round(height * scale), 1), max(round(width * scale), 1)
        top = int(rng.integers(image.shape[0] - high + 1))
        left = int(rng.integers(image.shape[1] - wide + 1))
        crop = image[top : top + high, left : left + wide, ::-1]
        smaller = high > height
        crop = cv2.resize(
            np.ascontiguousarray(crop),
            (width, height),
            interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR,
        )
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        values = (crop / np.float32(255) - np.array(self.mean, "f4")) / np.array(self.std, "f4")
        return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))


class FolderBatches:
    """Map a step's number to a batch, so that a resumed run sees what it would have seen.

    Args:
        folder: The files.
        count: Inputs in a batch.
        seed: Of the run.
    """

    def __init__(self, folder: InputFolder, count: int, seed: int) -> None:
        self._folder, self._count, self._seed = folder, count, seed

    def __getitem__(self, step: int) -> Tensor:
        """Return the batch of a step, (B, ...) float32."""
        rng = np.random.default_rng([self._seed, step])
        files = self._folder.files
        chosen = [files[int(rng.integers(len(files)))] for _ in range(self._count)]
        return torch.stack([self._folder.load(path, rng) for path in chosen])
