"""Judge two sets of outputs in the units of the task, next to the raw and the relative difference.

Element-wise differences of a pruned network mislead: two tokens whose scores nearly tie may swap
places between back ends without moving a joint. What counts is how far the answer moves, so each
task brings a `TaskMetric`; raw and relative differences are reported beside it, not judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from prunus.export.verify.budgets import POSE_HEATMAPS, POSE_PIXELS, Limit
from prunus.runtime.card import KeypointPostprocess, ModelCard
from prunus.runtime.errors import CheckFailedError, UsageError

Array = npt.NDArray[Any]
Outputs = Mapping[str, Array]

HEATMAPS = "heatmaps"
CONFIDENT_SCORE = 0.2  # the score above which ViTPose counts a joint when it scores a person again


@dataclass(frozen=True, slots=True)
class Difference:
    """Raw difference of one output.

    Attributes:
        output: Name of the output.
        maximum: Largest absolute difference, in the output's own unit.
        mean: Mean absolute difference.
        relative: `maximum` as a share of the reference's range.
    """

    output: str
    maximum: float
    mean: float
    relative: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a task metric found.

    Attributes:
        values: Quantity -> value; the unit is the end of the quantity's name.
        notes: Sentences for the report: what was judged, where the worst case is.
    """

    values: Mapping[str, float]
    notes: tuple[str, ...]


class TaskMetric(Protocol):
    """How one task compares a suspect with its reference."""

    def measure(self, reference: Outputs, suspect: Outputs, card: ModelCard) -> Measurement:
        """Measure the effect; arrays are stacked over all samples along axis 0."""

    def limits(self, card: ModelCard, precision: str) -> tuple[Limit, ...]:
        """Return the budget for a suspect that computes in `precision`."""


def differences(reference: Outputs, suspect: Outputs) -> tuple[Difference, ...]:
    """Return raw and relative differences of every output, in the reference's order.

    Args:
        reference: Output name -> (N, ...) array.
        suspect: The same names and shapes.

    Raises:
        CheckFailedError: names or shapes differ.
    """
    if missing := [name for name in reference if name not in suspect]:
        raise CheckFailedError(
            f"The suspect has no output {missing}; it has {sorted(suspect)}.",
            "Export both with the same options (e.g. --heatmaps).",
        )
    found = []
    for name, expected in reference.items():
        got = suspect[name]
        if got.shape != expected.shape:
            raise CheckFailedError(
                f"Output '{name}' has shape {got.shape}; the reference has {expected.shape}.",
                "Compare files of the same model, joints and options.",
            )
        gap = np.abs(got.astype(np.float64) - expected.astype(np.float64))
        found.append(Difference(name, _peak(gap), float(gap.mean()), _peak(gap) / span(expected)))
    return tuple(found)


def span(values: Array) -> float:
    """Return the range of the finite values of an array, at least a tiny positive number.

    A constant array has no range; its magnitude stands in, so that a relative error stays defined.
    """
    finite = values[np.isfinite(values)].astype(np.float64)
    if not finite.size:
        return 1.0
    width = float(finite.max() - finite.min())
    return max(width, 1e-6 * float(np.abs(finite).max()), 1e-30)


def _peak(gap: Array) -> float:
    """Return the maximum; NaN stays NaN, so that a poisoned output can never look small."""
    return float(gap.max()) if gap.size else 0.0


def non_finite(outputs: Outputs, owner: str) -> tuple[str, ...]:
    """Return one sentence per output that holds NaN or Inf, naming the first sample.

    Args:
        outputs: Output name -> (N, ...) array.
        owner: Name of the runner, for the sentence.
    """
    found = []
    for name, values in outputs.items():
        if not np.issubdtype(values.dtype, np.floating):
            continue
        bad = ~np.isfinite(values)
        if bad.any():
            kinds = f"{int(np.isnan(values).sum())} NaN and {int(np.isinf(values).sum())} Inf"
            first = int(np.argwhere(bad)[0][0])
            found.append(
                f"{owner}: output '{name}' holds {kinds} in {values.size} values, "
                f"first in sample {first}."
            )
    return tuple(found)


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
        values["score_max"] = _peak(np.abs(got[..., 2] - expected[..., 2]))
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


def metric_for(card: ModelCard) -> TaskMetric:
    """Return the metric of the card's task; raises UsageError when there is none yet."""
    if card.task not in METRICS:
        raise UsageError(
            f"No metric compares models of task '{card.task}'.",
            f"Tasks with a metric: {', '.join(sorted(METRICS))}.",
        )
    return METRICS[card.task]


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
        "heatmap_max_relative": _peak(np.abs(gap)) / width,
        "heatmap_rms_relative": float(np.sqrt((gap**2).mean())) / width,
    }


METRICS: dict[str, TaskMetric] = {"pose": PoseMetric()}
