"""Decide, from how far a training has come, what the next step looks like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """Hold what stays constant during a part of a training on pictures.

    Args:
        until: Progress (0..1) at which the stage ends.
        size: Height and width of the inputs.
        batch: Samples in a step.
        real: Share of real pictures.
    """

    until: float
    size: tuple[int, int]
    batch: int
    real: float


def stage_at(progress: float, stages: Sequence[Stage]) -> int:
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
