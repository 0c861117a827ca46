"""Judge a pose network: how far do joints move, in pixels of its input?"""

from __future__ import annotations

import numpy as np

from prunus.export.verify.budgets import POSE_HEATMAPS, POSE_PIXELS, Limit
from prunus.export.verify.metrics import Array, Measurement, Outputs, peak, span
from prunus.runtime.card.card import KeypointPostprocess, ModelCard

HEATMAPS = "heatmaps"
CONFIDENT_SCORE = 0.2  # the score above which ViTPose counts a joint when it scores a person again


class PoseMetric:
    """Distance of joints in input pixels; heatmaps instead where the weights are random."""

    def measure(self, reference: Outputs, suspect: Outputs, card: ModelCard) -> Measurement:
        """Measure ``keypoints`` (N, J, 3), pixels and score, and ``heatmaps`` (N, J, h, w)."""
        expected, got = reference["keypoints"], suspect["keypoints"]
        distance = np.linalg.norm(got[..., :2] - expected[..., :2], axis=-1)
        judged = np.ones(distance.shape, dtype=bool)
        if _has_confidence(card):
            judged = expected[..., 2] >= CONFIDENT_SCORE
        values = {"judged_joints": float(judged.sum()), **_distances(distance[judged])}
        values["score_max"] = peak(np.abs(got[..., 2] - expected[..., 2]))
        if HEATMAPS in reference and HEATMAPS in suspect:
            values |= _heatmap_errors(reference[HEATMAPS], suspect[HEATMAPS])
        return Measurement(values, self._notes(distance, judged, expected, card))

    def limits(self, card: ModelCard, precision: str) -> tuple[Limit, ...]:
        """Return pixel limits, or heatmap limits for a heatmap network with random weights."""
        table = POSE_PIXELS if judges_pixels(card) else POSE_HEATMAPS
        return table[precision]

    @staticmethod
    def _notes(distance: Array, judged: Array, expected: Array, card: ModelCard) -> tuple[str, ...]:
        if not judges_pixels(card):
            return (
                "The weights are random, so heatmaps are flat and the place of their maximum means "
                "nothing: pixels are shown for all joints, heatmaps are judged.",
            )
        rule = f"reference score >= {CONFIDENT_SCORE}" if _has_confidence(card) else "all"
        notes = [f"Judged {int(judged.sum())} of {judged.size} joints ({rule})."]
        if judged.any():
            sample, joint = np.unravel_index(
                int(np.argmax(np.where(judged, distance, -1.0))), distance.shape
            )
            notes.append(
                f"Worst: sample {sample}, {_joint_name(card, int(joint))}, "
                f"{distance[sample, joint]:.3g} px at score {expected[sample, joint, 2]:.2f}."
            )
        return tuple(notes)


def judges_pixels(card: ModelCard) -> bool:
    """Return whether joint positions mean something: trained, or regressed without an arg-max."""
    return card.weights.trained or _regresses(card)


def _regresses(card: ModelCard) -> bool:
    post = card.postprocess
    return isinstance(post, KeypointPostprocess) and post.decoder == "regression"


def _has_confidence(card: ModelCard) -> bool:
    """Return whether a joint's score tells if its place means something: trained heatmaps only."""
    return card.weights.trained and not _regresses(card)


def _joint_name(card: ModelCard, index: int) -> str:
    post = card.postprocess
    names = post.joints if isinstance(post, KeypointPostprocess) else ()
    return names[index] if index < len(names) else f"joint {index}"


def _distances(pixels: Array) -> dict[str, float]:
    if not pixels.size:
        return dict.fromkeys(("mean_px", "p50_px", "p99_px", "max_px"), float("nan"))
    p50, p99 = np.percentile(pixels, (50, 99))
    return {
        "mean_px": float(pixels.mean()),
        "p50_px": float(p50),
        "p99_px": float(p99),
        "max_px": float(pixels.max()),
    }


def _heatmap_errors(expected: Array, got: Array) -> dict[str, float]:
    gap = got.astype(np.float64) - expected.astype(np.float64)
    width = span(expected)
    return {
        "heatmap_max_relative": peak(np.abs(gap)) / width,
        "heatmap_rms_relative": float(np.sqrt((gap**2).mean())) / width,
    }
