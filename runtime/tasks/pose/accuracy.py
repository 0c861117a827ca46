"""Accuracy of keypoints against ground truth, in numpy: OKS, PCK and suppression of doubles.

Object keypoint similarity follows the COCO keypoint challenge; the percentage of correct keypoints
follows Yang and Ramanan (CVPR 2011) with the larger side of the person's box as the reference
length.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import TensorError

Array = npt.NDArray[np.floating]


def oks(
    predicted: Array, truth: Array, visible: npt.NDArray[np.bool_], area: Array, sigmas: Array
) -> npt.NDArray[np.float64]:
    """Return the object keypoint similarity of each person.

    With the distance d, the area a and the constant s of a joint, a joint scores
    ``exp(-d^2 / (2 a (2 s)^2))``; a person scores the mean over the labelled joints.

    Args:
        predicted: (P, J, 2) in image pixels.
        truth: (P, J, 2) in image pixels.
        visible: (P, J), True where the joint is labelled.
        area: (P,) area of the person's segment in square pixels.
        sigmas: (J,) COCO constants, 0.025 (eyes) to 0.107 (hips); doubled inside, as COCO does.

    Returns:
        (P,) in 0..1; NaN for a person without labelled joints.

    Raises:
        TensorError: shapes do not fit together.

    Example:
        >>> spot = np.zeros((1, 1, 2))
        >>> oks(spot, spot, np.ones((1, 1), bool), np.ones(1), np.ones(1))
        array([1.])
    """
    _fit(predicted, truth, visible)
    if sigmas.shape != truth.shape[1:2] or area.shape != truth.shape[:1]:
        raise TensorError(
            f"Got {sigmas.shape} sigmas and {area.shape} areas for {truth.shape[0]} people of "
            f"{truth.shape[1]} joints.",
            "Give one sigma per joint and one area per person.",
        )
    squared = ((predicted - truth).astype(np.float64) ** 2).sum(-1)
    scale = 2.0 * (area.astype(np.float64)[:, None] + np.spacing(1)) * (2.0 * sigmas[None]) ** 2
    return _mean_over(np.exp(-squared / scale), visible)


def pck(
    predicted: Array,
    truth: Array,
    visible: npt.NDArray[np.bool_],
    length: Array,
    alpha: float = 0.2,
) -> npt.NDArray[np.float64]:
    """Return the share of each person's labelled joints within ``alpha * length`` of the truth.

    Args:
        predicted: (P, J, 2) in image pixels.
        truth: (P, J, 2) in image pixels.
        visible: (P, J), True where the joint is labelled.
        length: (P,) reference length in pixels, e.g. from `box_length`.
        alpha: Share of the length that still counts as correct.

    Returns:
        (P,) in 0..1; NaN for a person without labelled joints.

    Raises:
        TensorError: shapes do not fit together.
    """
    _fit(predicted, truth, visible)
    distance = np.sqrt(((predicted - truth).astype(np.float64) ** 2).sum(-1))
    return _mean_over((distance <= alpha * length[:, None]).astype(np.float64), visible)


def box_length(boxes: Array) -> npt.NDArray[np.float64]:
    """Return the larger side of (P, 4) boxes ``x0 y0 x1 y1`` in pixels."""
    b = boxes.astype(np.float64)
    return np.maximum(b[:, 2] - b[:, 0], b[:, 3] - b[:, 1])


def rescored(box_score: float, joint_scores: Array, threshold: float = 0.2) -> float:
    """Return a person's score: the box's times the mean of the joints above `threshold`.

    Top-down evaluation on COCO ranks people this way, so that a good box around a poor skeleton
    does not come first; without a joint above the threshold the score is 0.
    """
    kept = joint_scores[joint_scores > threshold]
    return float(box_score * kept.mean()) if kept.size else 0.0


def suppress_doubles(
    keypoints: Array, scores: Array, areas: Array, sigmas: Array, threshold: float = 0.9
) -> list[int]:
    """Return the indices of people to keep: of two that are more than `threshold` alike, the best.

    Args:
        keypoints: (P, J, 2) in image pixels, of one image.
        scores: (P,) score of each person.
        areas: (P,) area of each person's box in square pixels.
        sigmas: (J,) COCO constants.
        threshold: OKS above which two people are the same.

    Returns:
        Kept indices, best score first.
    """
    kept: list[int] = []
    labelled = np.ones(keypoints.shape[1:2], dtype=bool)
    for index in np.argsort(-scores, kind="stable").tolist():
        rivals = keypoints[kept]
        size = (areas[kept] + areas[index]) / 2
        same = oks(
            np.broadcast_to(keypoints[index], rivals.shape),
            rivals,
            np.broadcast_to(labelled, rivals.shape[:2]),
            size,
            sigmas,
        )
        if not (same > threshold).any():
            kept.append(index)
    return kept


def mean_over_people(values: Sequence[float] | Array) -> float:
    """Return the mean over people with labelled joints, NaN when there are none."""
    array = np.asarray(values, dtype=np.float64)
    array = array[~np.isnan(array)]
    return float(array.mean()) if array.size else float("nan")


def _fit(predicted: Array, truth: Array, visible: npt.NDArray[np.bool_]) -> None:
    good = truth.ndim == 3 and truth.shape[-1] == 2
    if not good or predicted.shape != truth.shape or visible.shape != truth.shape[:2]:
        raise TensorError(
            f"Got predictions {predicted.shape}, truth {truth.shape}, visibility {visible.shape}; "
            "expected (people, joints, 2), the same, and (people, joints).",
            "Drop the score column and keep the joints in the same order.",
        )


def _mean_over(
    values: npt.NDArray[np.float64], visible: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    count = visible.sum(1)
    total = np.where(visible, values, 0.0).sum(1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
