"""How many pixels keep their class, in numbers worked out by hand, and whose limits apply."""

from types import SimpleNamespace

import numpy as np
import pytest

from prunus.runtime.tasks.segmentation.card import MaskPostprocess
from prunus.runtime.tasks.segmentation.metric import (
    SEGMENTATION_LOGITS,
    SEGMENTATION_PIXELS,
    SEGMENTATION_SCORES,
    SegmentationMetric,
    class_maps,
    hidden_scores,
    mean_iou,
    worst_class_iou,
)

METRIC = SegmentationMetric()
PALETTE = ((0, 0, 0), (255, 0, 0), (0, 255, 0))


def _card(decoder="class_ids", *, trained=True, dtype="uint8", classes=3) -> SimpleNamespace:
    return SimpleNamespace(
        inputs=[SimpleNamespace(shape=(2, 60, 33, 3))],
        outputs=[SimpleNamespace(name="m", dtype=dtype)],
        weights=SimpleNamespace(trained=trained),
        postprocess=MaskPostprocess(decoder, tuple("abc"[:classes]), PALETTE[:classes]),
    )


def test_pixels_and_classes_of_two_maps() -> None:
    expected = np.zeros((2, 2, 5), np.uint8)
    expected[0, 0] = 1
    got = expected.copy()
    got[0, 0, :2] = 2  # two of the five pixels of class 1
    found = METRIC.measure({"m": expected}, {"m": got}, _card())
    assert found.values == {
        "pixels_equal": 0.9,
        "miou": pytest.approx((1 + 3 / 5 + 0) / 3),
        "worst_class_iou": pytest.approx(3 / 5),  # the reference shows no class 2
        "judged_pixels": 20.0,
    }
    assert found.notes == ("Worst: sample 0, 20 % of its pixels differ.",)
    found = METRIC.measure({"m": expected[::-1]}, {"m": got[::-1]}, _card(trained=False))
    assert found.notes[0] == "Worst: sample 1, 20 % of its pixels differ."
    assert "random" in found.notes[1]


def test_a_class_counts_from_half_a_percent_on() -> None:
    expected = np.zeros(1000, np.uint8)
    expected[:4], expected[10:15] = 1, 2
    got = np.zeros_like(expected)
    assert worst_class_iou(expected, got) == 0.0  # five of a thousand
    expected[14] = 0
    assert worst_class_iou(expected, got) == pytest.approx(992 / 1000)
    assert worst_class_iou(expected, expected) == mean_iou(expected, expected) == 1.0


def test_the_mean_counts_classes_of_either_map() -> None:
    assert mean_iou(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 2])) == pytest.approx(
        (1 / 2 + 1 / 3 + 0) / 3
    )


def test_scores_become_the_best_class() -> None:
    scores = np.zeros((1, 3, 1, 4), np.float32)
    scores[0, [2, 1, 0, 2], 0, [0, 1, 2, 3]] = 1
    assert class_maps({"m": scores}, _card("logits")).tolist() == [[[2, 1, 0, 2]]]
    shares = np.array([0.49, 0.5, 0.51, 0.0], np.float32).reshape(1, 1, 1, 4)
    card = _card("probability", classes=2)
    assert class_maps({"m": shares}, card).tolist() == [[[0, 1, 1, 0]]]
    whole = np.array([[[3, 1]]], np.uint8)
    assert class_maps({"m": whole}, _card()) is whole


def test_errors_of_scores_as_shares() -> None:
    expected = np.zeros((2, 2, 2, 2), np.float32)
    expected[:, 0], expected[:, 1] = 3, -1  # a range of 4, mean square 5
    got = expected.copy()
    got[1, 0, 0, 0] += 2
    values = METRIC.measure({"m": expected}, {"m": got}, _card("logits", dtype="float32")).values
    assert values["logit_max_relative"] == pytest.approx(0.5)
    assert values["logit_rms_relative"] == pytest.approx(np.sqrt(4 / 8) / 4)
    assert values["score_rms_relative"] == pytest.approx(np.sqrt(4 / 8 / 5))


def test_scores_beside_classes_are_judged_where_both_files_have_them() -> None:
    maps, scores = np.zeros((1, 2, 2), np.uint8), np.ones((1, 3, 2, 2), np.float32)
    both = {"m": maps, "logits": scores}
    assert "score_rms_relative" not in METRIC.measure(both, {"m": maps}, _card()).values
    halved = {"m": maps, "logits": scores / 2}
    values = METRIC.measure(both, halved, _card()).values
    assert values["pixels_equal"] == 1 and values["score_rms_relative"] == pytest.approx(0.5)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_limits_by_what_the_file_gives(precision) -> None:
    pixels = SEGMENTATION_PIXELS[precision]
    assert METRIC.limits(_card(), precision) == pixels
    shown = METRIC.limits(_card("logits", dtype="float32"), precision)
    assert shown == pixels + SEGMENTATION_SCORES[precision]
    assert METRIC.limits(_card(trained=False), precision) == SEGMENTATION_LOGITS[precision]


def test_what_each_precision_may_cost() -> None:
    def told(table):
        return {p: [f"{m.quantity} {m.describe()}" for m in row] for p, row in table.items()}

    assert told(SEGMENTATION_PIXELS) == {
        "fp32": ["pixels_equal >= 0.9999", "worst_class_iou >= 0.99"],
        "fp16": ["pixels_equal >= 0.995", "worst_class_iou >= 0.9"],
        "int8": ["pixels_equal >= 0.985", "worst_class_iou >= 0.7"],
    }
    assert told(SEGMENTATION_LOGITS) == {
        "fp32": ["logit_max_relative <= 0.0001", "pixels_equal >= 0.9999"],
        "fp16": ["logit_rms_relative <= 0.01", "pixels_equal >= 0.995"],
        "int8": ["logit_rms_relative <= 0.1"],
    }
    assert told(SEGMENTATION_SCORES) == {
        "fp32": ["score_rms_relative <= 0.001"], "fp16": ["score_rms_relative <= 0.02"],
        "int8": ["score_rms_relative <= 0.15"],
    }  # fmt: skip


def test_random_weights_are_judged_by_logits_an_eighth_of_the_size() -> None:
    assert hidden_scores(_card(trained=False)) == ("logits", (2, 3, 8, 5))
    assert hidden_scores(_card()) is None
    assert hidden_scores(_card("logits", trained=False)) is None
