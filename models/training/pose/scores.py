"""Average what the runtime's measures say of people: similarity, PCK, mean distance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunus.models.pose.skeleton import COCO17
from prunus.runtime.tasks.pose.accuracy import oks

COCO_SIGMAS = np.array(COCO17.sigmas)  # spread of human annotation per joint
# COCO takes the area of the person's mask; a mask fills about this share of its box.
MASK_SHARE = 0.53


@dataclass(frozen=True)
class PoseScores:
    """Hold averages over people and joints.

    Args:
        oks: Mean object keypoint similarity over people, 0..1.
        oks_50: Share of people with OKS >= 0.5.
        oks_75: Share of people with OKS >= 0.75.
        pck: Share of joints closer than 0.2 of the torso (or a third of the box, whichever is
            larger is not used: see ``torso_length``).
        pixels: Mean distance of labelled joints, in pixels of the given coordinates.
        people: Number of people with at least one labelled joint.
        joints: Number of labelled joints.
    """

    oks: float
    oks_50: float
    oks_75: float
    pck: float
    pixels: float
    people: int
    joints: int


def torso_length(wanted: np.ndarray, labelled: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return (N,) the longer torso diagonal (shoulder to opposite hip), or a third of the box.

    The box's height (xyxy) stands in where no diagonal is labelled.
    """
    length = np.zeros(len(wanted))
    for shoulder, hip in ((5, 12), (6, 11)):
        known = labelled[:, shoulder] & labelled[:, hip]
        diagonal = np.linalg.norm(wanted[:, shoulder] - wanted[:, hip], axis=1)
        length = np.maximum(length, np.where(known, diagonal, 0))
    return np.where(length > 0, length, (box[:, 3] - box[:, 1]) / 3)


def score_poses(
    found: np.ndarray, wanted: np.ndarray, labelled: np.ndarray, boxes: np.ndarray
) -> PoseScores:
    """Average the measures over people (OKS) and labelled joints (PCK@0.2, pixels).

    Args:
        found: float (N,17,2 or more) x, y.
        wanted: float (N,17,2) x, y.
        labelled: bool (N,17).
        boxes: float (N,4) xyxy of the people, in the same pixels.
    """
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) * MASK_SHARE
    each = oks(found[..., :2], wanted, labelled, area, COCO_SIGMAS)
    each = each[~np.isnan(each)]
    distance = np.linalg.norm(found[..., :2] - wanted, axis=2)
    limit = 0.2 * torso_length(wanted, labelled, boxes)[:, None]
    close = (distance < limit)[labelled]
    return PoseScores(
        oks=_mean(each),
        oks_50=_mean(each >= 0.5),
        oks_75=_mean(each >= 0.75),
        pck=_mean(close),
        pixels=_mean(distance[labelled]),
        people=len(each),
        joints=int(labelled.sum()),
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
