"""How alike two people are: by their boxes (IoU) and by their joints (OKS)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from prunus.runtime.tasks.pose.estimator import Pose

Doubles = npt.NDArray[np.float64]

_SEEN = 0.2  # joints below say nothing about identity
_BOX_MARGIN = 0.12  # joints end at eyes and ankles; heads and feet go on


def box_iou(first: Doubles, second: Doubles) -> Doubles:
    """Return intersection over union of boxes: (n, 4) and (m, 4) of corners -> (n, m)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=-1)
    area = np.prod(first[:, 2:] - first[:, :2], axis=-1)[:, None]
    other = np.prod(second[:, 2:] - second[:, :2], axis=-1)[None]
    return np.asarray(common / np.maximum(area + other - common, 1e-9))


def keypoint_similarity(
    first: Sequence[Pose], second: Sequence[Pose], sigmas: npt.NDArray[np.float64]
) -> Doubles:
    """Return object keypoint similarity of poses, (n, m), as COCO defines it.

    The mean over joints that both see of exp(-d^2 / (2 area (2 sigma)^2)), with the area of the
    larger box; 0 for pairs that share no joint.

    Args:
        first: n poses.
        second: m poses with as many joints.
        sigmas: float64 (joints,), the OKS constants.
    """
    result = np.zeros((len(first), len(second)))
    if result.size == 0:
        return result
    a, b = (np.stack([p.keypoints for p in poses]) for poses in (first, second))
    both = (a[:, None, :, 2] > _SEEN) & (b[None, :, :, 2] > _SEEN)
    distance = ((a[:, None, :, :2] - b[None, :, :, :2]) ** 2).sum(-1)
    area = np.maximum(_area(first)[:, None], _area(second)[None])[..., None]
    close = np.exp(-distance / (2 * np.maximum(area, 1.0) * (2 * sigmas) ** 2)) * both
    return np.asarray(close.sum(-1) / np.maximum(both.sum(-1), 1))


def _area(poses: Sequence[Pose]) -> Doubles:
    boxes = np.array([p.box for p in poses], np.float64)
    return np.asarray(np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1))


def box_of_joints(pose: Pose, minimum_joints: int = 4) -> tuple[float, float, float, float]:
    """Return a box around the joints that are seen, with room for head and feet.

    Falls back to the box of the pose when fewer than `minimum_joints` are seen.
    """
    seen = pose.keypoints[pose.keypoints[:, 2] > _SEEN, :2]
    if len(seen) < minimum_joints:
        return pose.box
    low, high = seen.min(0), seen.max(0)
    margin = _BOX_MARGIN * float((high - low).max())
    return (
        float(low[0]) - margin,
        float(low[1]) - margin,
        float(high[0]) + margin,
        float(high[1]) + margin,
    )
