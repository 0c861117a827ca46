"""Judge a segmentation network: how many pixels change their class?"""

from __future__ import annotations

import numpy as np

from prunus.export.verify.budgets import SEGMENTATION_LOGITS, SEGMENTATION_PIXELS, Limit
from prunus.export.verify.metrics import Array, Measurement, Outputs, peak, span
from prunus.runtime.card.card import MaskPostprocess, ModelCard

LOGITS = "logits"


class SegmentationMetric:
    """Share of pixels with the same class, and the mean intersection over union of both maps."""

    def measure(self, reference: Outputs, suspect: Outputs, card: ModelCard) -> Measurement:
        """Measure class maps (N, h, w), and scores (N, C, h, w) that come along."""
        expected, got = class_maps(reference, card), class_maps(suspect, card)
        equal = expected == got
        values = {
            "pixels_equal": float(equal.mean()),
            "miou": mean_iou(expected, got),
            "judged_pixels": float(equal.size),
        }
        scores = [n for n, v in reference.items() if v.dtype.kind == "f" and n in suspect]
        if scores:
            values |= _errors(reference[scores[-1]], suspect[scores[-1]])
        worst = int(np.argmin(equal.reshape(len(equal), -1).mean(axis=1)))
        share = 1 - float(equal[worst].mean())
        notes = [f"Worst: sample {worst}, {100 * share:.3g} % of its pixels differ."]
        if not card.weights.trained:
            notes.append("The weights are random: class maps show precision, not meaning.")
        return Measurement(values, tuple(notes))

    def limits(self, card: ModelCard, precision: str) -> tuple[Limit, ...]:
        """Return pixel limits; for random weights with limits on the logits."""
        return (SEGMENTATION_PIXELS if card.weights.trained else SEGMENTATION_LOGITS)[precision]


def class_maps(outputs: Outputs, card: ModelCard) -> Array:
    """Return class numbers (N, h, w): given, or the best of the scores."""
    first = outputs[card.outputs[0].name]
    if first.dtype.kind != "f":
        return first
    post = card.postprocess
    if isinstance(post, MaskPostprocess) and post.decoder == "probability":
        return (first[:, 0] >= 0.5).astype(np.uint8)
    best: Array = first.argmax(axis=1)
    return best


def mean_iou(expected: Array, got: Array) -> float:
    """Return the mean over the classes in either map of |both| / |either|."""
    scores = []
    for number in np.union1d(expected, got):
        a, b = expected == number, got == number
        scores.append(float((a & b).sum()) / float((a | b).sum()))
    return float(np.mean(scores))


def _errors(expected: Array, got: Array) -> dict[str, float]:
    gap = got.astype(np.float64) - expected.astype(np.float64)
    width = span(expected)
    return {
        "logit_max_relative": peak(np.abs(gap)) / width,
        "logit_rms_relative": float(np.sqrt((gap**2).mean())) / width,
    }
