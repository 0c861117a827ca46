"""Decide, from how far a training has come, what the next step looks like."""

from __future__ import annotations

import math
from dataclasses import dataclass

from prunus.models.training.pose.augment import GENTLE, AugmentConfig


@dataclass(frozen=True)
class Stage:
    """Hold what stays constant during a part of the training.

    Args:
        until: Progress (0..1) at which the stage ends.
        size: Height and width of the inputs.
        batch: Samples in a step.
        pruned: Share of the batch that runs at a random level L1-L3.
        street: Share of real crops.
        augment: Strengths.
        sigma: Width of the targets in heatmap cells. Small maps need narrow targets: with the
            usual 2 a left and a right joint melt into one blob, and nothing tells them apart.
    """

    until: float
    size: tuple[int, int]
    batch: int
    pruned: float
    street: float
    augment: AugmentConfig
    sigma: float = 2.0


# Half-size inputs cost a quarter of a step: they teach where bodies are; the rest teaches where
# exactly, and how to do with fewer patches.
STAGES = (
    Stage(0.5, (128, 96), 32, 0.0, 0.6, GENTLE, sigma=1.25),
    Stage(1.0, (256, 192), 24, 0.5, 0.6, GENTLE),
)

# A network that starts from weights knows where bodies are.
FINE_STAGES = (Stage(1.0, (256, 192), 24, 0.5, 0.5, GENTLE),)


def stage_at(progress: float, stages: tuple[Stage, ...] = STAGES) -> int:
    """Return the index of the stage at ``progress``."""
    for index, stage in enumerate(stages):
        if progress < stage.until:
            return index
    return len(stages) - 1


def rate_factor(progress: float, step: int, warmup: int) -> float:
    """Return the learning rate's factor: linear warm-up, flat, then a cosine to 1 %."""
    warm = min(1.0, (step + 1) / max(warmup, 1))
    hold = 0.25
    if progress <= hold:
        return warm
    x = min(1.0, (progress - hold) / (1 - hold))
    return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * x)))


def locate_weight(progress: float) -> float:
    """Return the weight of the place loss: strong at the start, gone after 60 %."""
    return 0.3 * max(0.0, 1 - progress / 0.6)
