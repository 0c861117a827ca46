"""Judge a segmentation network: how many pixels change their class?"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from prunus.runtime.card.card import ModelCard
from prunus.runtime.tasks.limits import Limit
from prunus.runtime.tasks.metrics import Array, Measurement, Outputs, peak, relative_rms, span
from prunus.runtime.tasks.segmentation.card import MaskPostprocess

_SCORES = "score_rms_relative"
_CLASS = "worst_class_iou"
_SEEN = 0.005  # share of the pixels from which a class counts in it

# Share of pixels that keep their class; intersection over union of the class that suffers most,
# which the share does not see when it is small.
SEGMENTATION_PIXELS: Mapping[str, tuple[Limit, ...]] = MappingProxyType(
    {
        "fp32": (Limit("pixels_equal", 0.9999, "at least"), Limit(_CLASS, 0.99, "at least")),
        "fp16": (Limit("pixels_equal", 0.995, "at least"), Limit(_CLASS, 0.9, "at least")),
        "int8": (Limit("pixels_equal", 0.985, "at least"), Limit(_CLASS, 0.7, "at least")),
    }
)

# With random weights the best class is often a near tie: how many pixels change then tells more
# about the dice than about the format, so int8 is judged by logits, as shares of their range.
SEGMENTATION_LOGITS: Mapping[str, tuple[Limit, ...]] = MappingProxyType(
    {
        "fp32": (Limit("logit_max_relative", 1e-4), SEGMENTATION_PIXELS["fp32"][0]),
        "fp16": (Limit("logit_rms_relative", 1e-2), SEGMENTATION_PIXELS["fp16"][0]),
        "int8": (Limit("logit_rms_relative", 1e-1),),
    }
)

# Logits and probabilities that a file gives beside or instead of classes: users set thresholds on
# them, which the best class says nothing about.
SEGMENTATION_SCORES: Mapping[str, tuple[Limit, ...]] = MappingProxyType(
    {
        "fp32": (Limit(_SCORES, 1e-3),),
        "fp16": (Limit(_SCORES, 0.02),),
        "int8": (Limit(_SCORES, 0.15),),
    }
)

LOGITS = "logits"
_LOGIT_STRIDE = 8  # input pixels per cell


class SegmentationMetric:
    """Share of pixels with the same class, and the mean intersection over union of both maps."""

    def measure(self, reference: Outputs, suspect: Outputs, card: ModelCard) -> Measurement:
        """Measure class maps (N, h, w), and scores (N, C, h, w) that come along."""
        expected, got = class_maps(reference, card), class_maps(suspect, card)
        equal = expected == got
        values = {
            "pixels_equal": float(equal.mean()),
            "miou": mean_iou(expected, got),
            _CLASS: worst_class_iou(expected, got),
            "judged_pixels": float(equal.size),
        }
        scores = [n for n, v in reference.items() if v.dtype.kind == "f" and n in suspect]
        if scores:
            values |= _errors(reference[scores[-1]], suspect[scores[-1]])
            values[_SCORES] = max(relative_rms(reference[n], suspect[n]) for n in scores)
        worst = int(np.argmin(equal.reshape(len(equal), -1).mean(axis=1)))
        share = 1 - float(equal[worst].mean())
        notes = [f"Worst: sample {worst}, {100 * share:.3g} % of its pixels differ."]
        if not card.weights.trained:
            notes.append("The weights are random: class maps show precision, not meaning.")
        return Measurement(values, tuple(notes))

    def limits(self, card: ModelCard, precision: str) -> tuple[Limit, ...]:
        """Return pixel limits; for random weights with limits on the logits."""
        if not card.weights.trained:
            return SEGMENTATION_LOGITS[precision]
        shown = any(output.dtype.startswith("float") for output in card.outputs)
        return (*SEGMENTATION_PIXELS[precision], *(SEGMENTATION_SCORES[precision] if shown else ()))


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


def worst_class_iou(expected: Array, got: Array) -> float:
    """Return the least |both| / |either| of the classes that the reference shows enough of."""
    scores = [1.0]
    for number, count in zip(*np.unique(expected, return_counts=True), strict=True):
        if count >= _SEEN * expected.size:
            a, b = expected == number, got == number
            scores.append(float((a & b).sum()) / float((a | b).sum()))
    return min(scores)


def _errors(expected: Array, got: Array) -> dict[str, float]:
    gap = got.astype(np.float64) - expected.astype(np.float64)
    width = span(expected)
    return {
        "logit_max_relative": peak(np.abs(gap)) / width,
        "logit_rms_relative": float(np.sqrt(np.square(gap).mean(axis=(1, 2, 3)).max())) / width,
    }


def hidden_scores(card: ModelCard) -> tuple[str, tuple[int, ...]] | None:
    """Return name and shape of the logits that judge random weights, if the file hides them."""
    post = card.postprocess
    if not isinstance(post, MaskPostprocess) or post.decoder != "class_ids" or card.weights.trained:
        return None
    batch, height, width = card.inputs[0].shape[:3]
    rows, columns = -(-height // _LOGIT_STRIDE), -(-width // _LOGIT_STRIDE)
    return LOGITS, (batch, len(post.classes), rows, columns)
