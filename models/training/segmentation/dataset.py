"""Serve batches of pictures and masks: seeded by step, so that a resumed run sees what it would."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from prunus.models.training.pose.augment import recolour
from prunus.models.training.segmentation.shards import (
    IGNORE,
    PERSON,
    MaskImage,
    MaskShard,
    read_masks,
)

_SEAM = 5  # side in pixels of the unknown border around somebody pasted from a real picture


@dataclass(frozen=True)
class MaskPlan:
    """Say what a batch looks like.

    Args:
        size: Height and width of the inputs.
        count: Samples in a batch.
        real: Share of real, teacher-labelled pictures.
        seed: Seed of the run.
        paste: Probability that real people are put into another picture.
        colour: Strength of the colour changes.
    """

    size: tuple[int, int]
    count: int
    real: float
    seed: int
    paste: float = 0.4
    colour: float = 1.0


@dataclass(frozen=True)
class MaskPools:
    """Hold the two sources: rendered people with exact masks, real people with teachers' masks."""

    synthetic: MaskShard
    real: MaskShard | None

    @classmethod
    def read(cls, folder: Path) -> MaskPools:
        """Read ``synthetic`` and, if it is there, ``real`` below a cache folder."""
        real = folder / "real"
        has_real = real.is_dir() and any(real.glob("*.npz"))
        return cls(read_masks(folder / "synthetic"), read_masks(real) if has_real else None)

    def counts(self) -> dict[str, int]:
        """Return the number of pictures of each set."""
        return {
            "synthetic": len(self.synthetic),
            "real": 0 if self.real is None else len(self.real),
        }


class MaskBatches(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Map a step number to a batch: images uint8 (B,3,H,W) RGB and labels uint8 (B,H,W)."""

    def __init__(self, pools: MaskPools, plan: MaskPlan) -> None:
        self._pools = pools
        self._plan = plan

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the batch of a step."""
        import cv2

        cv2.setNumThreads(1)
        plan = self._plan
        rng = np.random.default_rng([plan.seed, step])
        images = np.empty((plan.count, *plan.size, 3), np.uint8)
        labels = np.empty((plan.count, *plan.size), np.uint8)
        for i in range(plan.count):
            shot = self._sample(rng)
            images[i], labels[i] = shot.image, shot.labels
        return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels)

    def _sample(self, rng: np.random.Generator) -> MaskImage:
        plan, pools = self._plan, self._pools
        if pools.real is not None and rng.random() < plan.real:
            shot = move(rng, _any(rng, pools.real), plan.size)
            if rng.random() < plan.paste:
                pool = pools.synthetic if rng.random() < 0.7 else pools.real
                shot = paste(shot, move(rng, _any(rng, pool), plan.size))
        else:
            shot = move(rng, _any(rng, pools.synthetic), plan.size)
        image = recolour(shot.image, plan.colour, rng)
        if rng.random() < 0.08 * plan.colour:
            image = image.mean(2, keepdims=True).astype(np.uint8).repeat(3, 2)
        return MaskImage(image, shot.labels)


def _any(rng: np.random.Generator, pool: MaskShard) -> MaskImage:
    return pool[int(rng.integers(len(pool)))]


def move(rng: np.random.Generator, shot: MaskImage, size: tuple[int, int]) -> MaskImage:
    """Scale, turn, shift, mirror; what comes in from outside is the picture's mirror image."""
    import cv2

    height, width = shot.labels.shape
    scale = size[0] / height * float(np.exp(rng.uniform(np.log(0.85), np.log(1.6))))
    stretch = float(np.exp(rng.normal(0, 0.08)))
    angle = np.deg2rad(float(np.clip(rng.normal(0, 8), -20, 20))) if rng.random() < 0.5 else 0.0
    cos, sin = np.cos(angle), np.sin(angle)
    turn = scale * np.array([[cos * stretch, -sin * stretch], [sin / stretch, cos / stretch]])
    if rng.random() < 0.5:
        turn[:, 0] *= -1
    room = np.maximum(scale * np.array([width, height]) - np.array(size[::-1]), 0) / 2
    middle = np.array(size[::-1]) / 2 + rng.uniform(-1, 1, 2) * room
    matrix = np.concatenate([turn, (middle - turn @ [width / 2, height / 2])[:, None]], 1)
    out = (size[1], size[0])
    if scale < 0.75:  # warping alone would alias
        blur = cv2.GaussianBlur(shot.image, (0, 0), 0.4 / scale)
    else:
        blur = shot.image
    border = cv2.BORDER_REFLECT_101
    image = cv2.warpAffine(blur, matrix, out, flags=cv2.INTER_LINEAR, borderMode=border)
    labels = cv2.warpAffine(shot.labels, matrix, out, flags=cv2.INTER_NEAREST, borderMode=border)
    return MaskImage(np.asarray(image), np.asarray(labels))


def paste(person: MaskImage, scene: MaskImage) -> MaskImage:
    """Put the known people of one picture into another of the same size.

    The seam, and what was unknown close to it, stays unknown.
    """
    import cv2

    sure = (person.labels == PERSON).astype(np.uint8)
    kernel = np.ones((_SEAM, _SEAM), np.uint8)
    near = cv2.dilate(sure, kernel) > 0
    alpha = cv2.GaussianBlur(sure.astype(np.float32), (0, 0), 0.8)[..., None]
    image = person.image * alpha + scene.image * (1 - alpha)
    labels = scene.labels.copy()
    labels[near & (person.labels == IGNORE)] = IGNORE
    labels[sure > 0] = PERSON
    return MaskImage(image.astype(np.uint8), labels)


def mask_loader(
    pools: MaskPools, plan: MaskPlan, first: int, last: int, workers: int = 1
) -> DataLoader[tuple[torch.Tensor, torch.Tensor]]:
    """Return a loader of the batches of steps ``first`` .. ``last - 1``, prepared ahead."""
    return DataLoader(
        MaskBatches(pools, plan),
        batch_size=None,
        sampler=range(first, last),
        num_workers=workers,
        prefetch_factor=3 if workers else None,
    )
