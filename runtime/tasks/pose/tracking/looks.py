"""What a person's clothes look like: the colour along each limb and side of the body.

Enough to tell most people of one scene apart for a while, at some ten microseconds each; no network
is asked. It is a hint beside place and motion, never alone a reason to call two people one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from prunus.runtime.tasks.pose.estimator import Pose

Looks = npt.NDArray[np.float32]
Frame = npt.NDArray[np.uint8]

_ALONG = np.array((0.3, 0.4, 0.5, 0.6, 0.7), np.float32)  # of a limb; its ends are others' too
_SEEN = 0.2  # joints below say nothing
_FEWEST = 3  # limbs in both views that say something
_SPREAD = 30.0  # levels by which one person's colours differ from view to view
_FAR = 80.0  # levels from which a limb is merely another's, or hidden by something
_NEW = 0.15  # weight of a new view


def looks_of(frame: Frame, pose: Pose, limbs: Sequence[tuple[int, int]]) -> Looks:
    """Return the colours of a person.

    Args:
        frame: uint8 (height, width, 3) BGR.
        pose: Joints in pixels of the frame.
        limbs: Pairs of joints.

    Returns:
        float32 (limbs, 3): brightness, red against green, yellow against blue, in levels; NaN for
        a limb that is not seen or outside the frame.
    """
    ends = np.array(limbs, np.intp).reshape(-1, 2)
    first, second = pose.keypoints[ends[:, 0]], pose.keypoints[ends[:, 1]]
    step = (second - first)[:, None, :2] * _ALONG[:, None]
    spots = np.rint(np.nan_to_num(first[:, None, :2] + step, nan=-1.0)).astype(np.intp)
    rows, columns = frame.shape[:2]
    inside = ((spots >= 0) & (spots < (columns, rows))).all(-1).all(-1)
    seen = inside & (first[:, 2] > _SEEN) & (second[:, 2] > _SEEN)
    x, y = np.clip(spots[..., 0], 0, columns - 1), np.clip(spots[..., 1], 0, rows - 1)
    blue, green, red = np.moveaxis(np.median(frame[y, x].astype(np.float32), axis=1), -1, 0)
    # Light changes as people walk; the two colour axes count double.
    looks = np.stack([(red + green + blue) / 3, 2 * (red - green), red + green - 2 * blue], axis=-1)
    looks[~seen] = np.nan
    return looks.astype(np.float32)


def alike(first: Looks | None, second: Looks | None) -> float:
    """Return how alike two views are, 0 to 1; 0.5 where too little is seen in both.

    Example:
        >>> alike(np.zeros((4, 3)), np.zeros((4, 3)))
        1.0
    """
    if first is None or second is None:
        return 0.5
    squared = np.minimum(((first - second) ** 2).mean(-1), _FAR**2)
    both = ~np.isnan(squared)
    if both.sum() < _FEWEST:
        return 0.5
    return float(np.exp(-squared[both].mean() / (2 * _SPREAD**2)))


def blended(old: Looks | None, new: Looks) -> Looks:
    """Return the memory of a person after one more view."""
    if old is None:
        return new
    mixed = old + np.float32(_NEW) * (new - old)
    return np.where(np.isnan(mixed), np.where(np.isnan(old), new, old), mixed)
