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


def looks_of(frame: Frame | None, poses: Sequence[Pose], limbs: Sequence[tuple[int, int]]) -> Looks:
    """Return the colours of people.

    Args:
        frame: uint8 (height, width, 3) BGR; None: nothing is seen.
        poses: Joints in pixels of the frame.
        limbs: Pairs of joints.

    Returns:
        float32 (people, limbs, 3): brightness, red against green, yellow against blue, in levels;
        NaN for a limb that is not seen or outside the frame.
    """
    ends = np.array(limbs, np.intp).reshape(-1, 2)
    if frame is None or not poses or not len(ends) or ends.max() >= len(poses[0].keypoints):
        return np.full((len(poses), len(ends), 3), np.nan, np.float32)
    joints = np.stack([p.keypoints for p in poses])
    first, second = joints[:, ends[:, 0]], joints[:, ends[:, 1]]
    step = (second - first)[:, :, None, :2] * _ALONG[:, None]
    spots = np.rint(np.nan_to_num(first[:, :, None, :2] + step, nan=-1.0)).astype(np.intp)
    rows, columns = frame.shape[:2]
    inside = ((spots >= 0) & (spots < (columns, rows))).all((2, 3))
    seen = inside & (first[..., 2] > _SEEN) & (second[..., 2] > _SEEN)
    x, y = np.clip(spots[..., 0], 0, columns - 1), np.clip(spots[..., 1], 0, rows - 1)
    colours = np.sort(frame[y, x], axis=2)[:, :, len(_ALONG) // 2].astype(np.float32)
    blue, green, red = np.moveaxis(colours, -1, 0)
    # Light changes as people walk; the two colour axes count double.
    looks = np.stack([(red + green + blue) / 3, 2 * (red - green), red + green - 2 * blue], axis=-1)
    looks[~seen] = np.nan
    return looks


def alike(first: Looks, second: Looks) -> npt.NDArray[np.float64]:
    """Return how alike views are, 0 to 1; 0.5 where too little is seen in both.

    Args:
        first: (n, limbs, 3) as `looks_of` returns them.
        second: (m, limbs, 3).

    Returns:
        float64 (n, m).

    Example:
        >>> alike(np.zeros((1, 4, 3)), np.zeros((1, 4, 3)))
        array([[1.]])
    """
    squared = np.minimum(((first[:, None] - second[None]) ** 2).mean(-1), _FAR**2)
    both = ~np.isnan(squared)
    count = both.sum(-1)
    mean = np.where(both, squared, 0).sum(-1, dtype=np.float64) / np.maximum(count, 1)
    return np.where(count >= _FEWEST, np.exp(-mean / (2 * _SPREAD**2)), 0.5)


def blended(old: Looks, new: Looks) -> Looks:
    """Return the memory of one person (limbs, 3) after one more view."""
    mixed = old + np.float32(_NEW) * (new - old)
    return np.where(np.isnan(mixed), np.where(np.isnan(old), new, old), mixed)
