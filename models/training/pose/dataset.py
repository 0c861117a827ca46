"""Serve people to the training: what a stage asks for, drawn from rendered and real crops."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from prunus.models.training.pictures import Pools, StepBatches, decode
from prunus.models.training.pose.augment import GENTLE, AugmentConfig, augment
from prunus.models.training.pose.shards import PeopleShard
from prunus.models.training.schedule import Stage

STREET = "street"  # folder of the real crops
# A joint outside the crop asks for an empty map, but quietly: COCO leaves such joints unlabelled.
ABSENT_WEIGHT = 0.2


@dataclass(frozen=True)
class PoseStage(Stage):
    """Hold what stays constant during a part of the training of poses.

    Args:
        pruned: Share of the batch that runs at a random level L1-L3.
        augment: Strengths.
        sigma: Width of the targets in heatmap cells. Small maps need narrow targets: with the
            usual 2 a left and a right joint melt into one blob, and nothing tells them apart.
    """

    pruned: float = 0.0
    augment: AugmentConfig = GENTLE
    sigma: float = 2.0


# Half-size inputs cost a quarter of a step: they teach where bodies are; the rest teaches where
# exactly, and how to do with fewer patches.
STAGES = (
    PoseStage(0.5, (128, 96), 32, 0.6, sigma=1.25),
    PoseStage(1.0, (256, 192), 24, 0.6, pruned=0.5),
)

# A network that starts from weights knows where bodies are, and can be shown less of one at a time.
FINE_STAGES = (
    PoseStage(
        1.0, (256, 192), 24, 0.6, pruned=0.5, augment=replace(GENTLE, half_body=0.15, channels=0.3)
    ),
)


def fine_stages(size: tuple[int, int] | None = None) -> tuple[PoseStage, ...]:
    """Return `FINE_STAGES` for inputs of another size: targets shrink with people, down to 1.25."""
    if size is None:
        return FINE_STAGES
    return tuple(
        replace(stage, size=size, sigma=max(1.25, stage.sigma * size[0] / stage.size[0]))
        for stage in FINE_STAGES
    )


def pose_batches(pools: Pools[PeopleShard], stage: PoseStage, count: int, seed: int) -> StepBatches:
    """Return batches of a stage: images uint8 (B,3,H,W) RGB and joints (B,17,3) float32.

    Args:
        pools: Rendered people with exact joints, real people with a teacher's.
        stage: Sizes and strengths.
        count: Samples in a batch.
        seed: Seed of the run.
    """

    def sample(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        real = pools.real is not None and rng.random() < stage.real
        pool = pools.real if pools.real is not None and real else pools.synthetic
        index = int(rng.integers(len(pool)))
        image, joints = augment(
            decode(pool.jpegs[index]),
            pool.keypoints[index],
            pool.boxes[index],
            stage.size,
            config=stage.augment,
            rng=rng,
        )
        if real:
            joints[:, 2] = np.minimum(1.0, 1.5 * joints[:, 2])
        else:
            limit = np.array([stage.size[1] - 1, stage.size[0] - 1])
            outside = np.any((joints[:, :2] < 0) | (joints[:, :2] > limit), 1)
            joints[outside, 2] = ABSENT_WEIGHT
        return image, joints.astype(np.float32)

    return StepBatches(sample, count, seed)
