"""Serve training batches: seeded by step, so that a resumed run sees what it would have seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from prunus.models.training.pose.augment import AugmentConfig, augment
from prunus.models.training.pose.shards import PeopleShard, decode_jpeg, read_shards

# Name of the file in a run's folder that tells how many pictures of each set it used.
DATA_RECORD = "data.json"

# A joint outside the crop asks for an empty map, but quietly: COCO leaves such joints unlabelled.
ABSENT_WEIGHT = 0.2


@dataclass(frozen=True)
class BatchPlan:
    """Say what a batch looks like.

    Args:
        size: Height and width of the inputs.
        count: Samples in a batch.
        street: Share of real, teacher-labelled crops.
        augment: Augmentation strengths.
        seed: Seed of the run.
    """

    size: tuple[int, int]
    count: int
    street: float
    augment: AugmentConfig
    seed: int


@dataclass(frozen=True)
class PosePools:
    """Hold the two sources: rendered people with exact joints, real people with a teacher's."""

    synthetic: PeopleShard
    street: PeopleShard | None

    @classmethod
    def read(cls, folder: Path) -> PosePools:
        """Read ``synthetic`` and, if it is there, ``street`` below a cache folder."""
        street = folder / "street"
        has_street = street.is_dir() and any(street.glob("*.npz"))
        return cls(read_shards(folder / "synthetic"), read_shards(street) if has_street else None)

    def counts(self) -> dict[str, int]:
        """Return the number of pictures of each set."""
        return {
            "synthetic": len(self.synthetic),
            "street": 0 if self.street is None else len(self.street),
        }


class PoseBatches(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Map a step number to a batch: images uint8 (B,3,H,W) RGB and joints (B,17,3) float32."""

    def __init__(self, pools: PosePools, plan: BatchPlan) -> None:
        self._pools = pools
        self._plan = plan

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the batch of a step."""
        import cv2

        cv2.setNumThreads(1)
        plan = self._plan
        rng = np.random.default_rng([plan.seed, step])
        height, width = plan.size
        images = np.empty((plan.count, height, width, 3), np.uint8)
        joints = np.empty((plan.count, 17, 3), np.float32)
        for i in range(plan.count):
            images[i], joints[i] = self._sample(rng)
        return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(joints)

    def _sample(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        plan, street = self._plan, self._pools.street
        real = street is not None and rng.random() < plan.street
        pool = street if street is not None and real else self._pools.synthetic
        index = int(rng.integers(len(pool)))
        stored = pool.keypoints[index]
        image, joints = augment(
            decode_jpeg(pool.jpegs[index]),
            stored,
            pool.boxes[index],
            plan.size,
            config=plan.augment,
            rng=rng,
        )
        if real:
            joints[:, 2] = np.minimum(1.0, 1.5 * joints[:, 2])
        else:
            limit = np.array([plan.size[1] - 1, plan.size[0] - 1])
            outside = np.any((joints[:, :2] < 0) | (joints[:, :2] > limit), 1)
            joints[outside, 2] = ABSENT_WEIGHT
        return image, joints


def batch_loader(
    pools: PosePools, plan: BatchPlan, first: int, last: int, workers: int = 1
) -> DataLoader[tuple[torch.Tensor, torch.Tensor]]:
    """Return a loader of the batches of steps ``first`` .. ``last - 1``, prepared ahead."""
    return DataLoader(
        PoseBatches(pools, plan),
        batch_size=None,
        sampler=range(first, last),
        num_workers=workers,
        prefetch_factor=3 if workers else None,
    )
