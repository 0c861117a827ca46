"""Keep a skeleton on one body: joints that belong to a neighbour, limbs that are too long.

Where people cross, the crop of one shows both, and the network may put the ankle of the one behind
on the leg of the one in front. Two signs tell: two people claim one spot for the same joint, or a
limb grows longer than it has been on that person. The joint of whoever was expected elsewhere goes
back to where it was expected, with a score of 0: a gap is drawn as a gap.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from prunus.runtime.tasks.pose.estimator import Pose
from prunus.runtime.tasks.pose.similarity import box_iou

Doubles = npt.NDArray[np.float64]
Limbs = Sequence[tuple[int, int]]

_SEEN = 0.2  # joints below are not drawn anyway
_SPOT = 0.05  # of the smaller height: two joints nearer than that are one spot
TOUCH = 0.02  # intersection over union from which two people may disturb one another
_STRETCH = 1.35  # of the longest length known
_SLACK = 0.06  # heights that a limb may gain besides
_FORGET = 0.995  # of a longest length is left after each view


def overlaps(boxes: Doubles) -> Doubles:
    """Return intersection over union of boxes (n, 4) with one another: (n, n), 0 with itself."""
    shared = box_iou(boxes, boxes)
    np.fill_diagonal(shared, 0.0)
    return shared


def separated(
    poses: Sequence[Pose], expected: Sequence[Pose], mirror: npt.NDArray[np.intp]
) -> list[Pose]:
    """Return poses in which no two people hold one spot for the same joint.

    Args:
        poses: Of one frame.
        expected: Where the same people should be, from their motion.
        mirror: (joints,) index of the same joint on the other side of the body.
    """
    if len(poses) < 2:
        return list(poses)
    kept = [p.keypoints for p in poses]
    boxes = np.array([p.box for p in poses], np.float64)
    heights = boxes[:, 3] - boxes[:, 1]
    for a, b in zip(*np.nonzero(np.triu(overlaps(boxes) > TOUCH)), strict=True):
        reach = _SPOT * min(heights[a], heights[b])
        for other in (np.arange(len(mirror)), mirror):
            one, two = poses[a].keypoints, poses[b].keypoints[other]
            near = np.linalg.norm(one[:, :2] - two[:, :2], axis=1) < reach
            near &= (one[:, 2] > _SEEN) & (two[:, 2] > _SEEN)
            if not near.any():
                continue
            off_a, off_b = (
                np.linalg.norm(seen[:, :2] - where.keypoints[order, :2], axis=1)
                for seen, where, order in (
                    (one, expected[a], np.arange(len(mirror))), (two, expected[b], other)
                )
            )  # fmt: skip
            kept[a] = _given_up(kept[a], expected[a], near & (off_a >= off_b))
            lost = np.zeros(len(mirror), bool)
            lost[other[near & (off_b > off_a)]] = True
            kept[b] = _given_up(kept[b], expected[b], lost)
    return [
        p if k is p.keypoints else dataclasses.replace(p, keypoints=k)
        for p, k in zip(poses, kept, strict=True)
    ]


def _given_up(
    keypoints: npt.NDArray[np.float32], expected: Pose, lost: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    if not lost.any():
        return keypoints
    left = keypoints.copy()
    left[lost, :2] = expected.keypoints[lost, :2]
    left[lost, 2] = 0.0
    return left


def limb_lengths(pose: Pose, height: float, limbs: Limbs) -> Doubles:
    """Return the length of each limb in heights of the person, 0 where an end is not seen."""
    ends = np.array(limbs, np.intp).reshape(-1, 2)
    a, b = pose.keypoints[ends[:, 0]], pose.keypoints[ends[:, 1]]
    length = np.linalg.norm(a[:, :2] - b[:, :2], axis=1) / max(height, 1.0)
    return np.asarray(np.where((a[:, 2] > _SEEN) & (b[:, 2] > _SEEN), length, 0.0), np.float64)


def grown(longest: Doubles | None, lengths: Doubles) -> Doubles:
    """Return the longest lengths after one more clear view."""
    return lengths if longest is None else np.maximum(longest * _FORGET, lengths)


def within_reach(
    pose: Pose, expected: Pose, height: float, longest: Doubles | None, limbs: Limbs
) -> Pose:
    """Return the pose without the joints that would stretch a limb beyond what it was.

    Of the two ends of a limb the one goes that is farther from where it was expected.
    """
    if longest is None or not len(limbs):
        return pose
    lengths = limb_lengths(pose, height, limbs)
    long = (longest > 0) & (lengths > _STRETCH * longest + _SLACK)
    if not long.any():
        return pose
    off = np.linalg.norm(pose.keypoints[:, :2] - expected.keypoints[:, :2], axis=1)
    lost = np.zeros(len(pose.keypoints), bool)
    for index in np.flatnonzero(long).tolist():
        a, b = limbs[index]
        lost[a if off[a] > off[b] else b] = True
    return dataclasses.replace(pose, keypoints=_given_up(pose.keypoints, expected, lost))
