"""The one-euro filter for joints (Casiez, Roussel and Vogel, CHI 2012).

A low-pass whose cut-off rises with speed: still joints stop trembling, fast joints do not lag.

    cutoff = minimum + slope * |speed|        alpha = 1 / (1 + rate / (2 pi cutoff))

Speed is measured in person sizes per second, not in pixels, so that one setting serves people near
and far.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Smoothing:
    """Settings of the filter.

    Attributes:
        minimum_cutoff_hz: Cut-off of a joint at rest; lower is steadier.
        slope: Rise of the cut-off in hertz per (person size / second); higher lags less.
        speed_cutoff_hz: Cut-off of the speed estimate.
    """

    minimum_cutoff_hz: float = 1.0
    slope: float = 30.0
    speed_cutoff_hz: float = 0.6


@dataclass(frozen=True, slots=True, eq=False)
class SmoothState:
    """What the filter remembers of one person.

    Attributes:
        points: float32 (joints, 2), the last output in pixels.
        speed: float32 (joints, 2) in person sizes per second.
        seconds: Time of the last output.
    """

    points: Floats
    speed: Floats
    seconds: float


def smooth(
    keypoints: Floats, size: float, seconds: float, state: SmoothState | None, settings: Smoothing
) -> tuple[Floats, SmoothState]:
    """Filter the joints of one person by one frame.

    Args:
        keypoints: float32 (joints, 3) of x, y in pixels and score; scores pass unchanged.
        size: Size of the person in pixels, e.g. the diagonal of the box.
        seconds: Time of the frame; it must grow from call to call.
        state: What the last call returned, None for a new person.
        settings: Settings of the filter.

    Returns:
        Filtered joints, float32 (joints, 3), and the state for the next call.
    """
    points = keypoints[:, :2]
    if state is None or seconds <= state.seconds:
        return keypoints, SmoothState(points.copy(), np.zeros_like(points), seconds)
    elapsed = seconds - state.seconds
    raw_speed = (points - state.points) / (elapsed * max(size, 1.0))
    speed = _mix(state.speed, raw_speed, np.float32(settings.speed_cutoff_hz), elapsed)
    magnitude = np.linalg.norm(speed, axis=1, keepdims=True)
    cutoff = (settings.minimum_cutoff_hz + settings.slope * magnitude).astype(np.float32)
    moved = _mix(state.points, points, cutoff, elapsed)
    result = keypoints.copy()
    result[:, :2] = moved
    return result, SmoothState(moved, speed, seconds)


def _mix(old: Floats, new: Floats, cutoff: Floats | np.float32, elapsed: float) -> Floats:
    alpha = 1.0 / (1.0 + 1.0 / (2.0 * math.pi * cutoff * elapsed))
    mixed: Floats = (old + alpha * (new - old)).astype(np.float32)
    return mixed
