"""How far joints move, in numbers worked out by hand, and whose limits apply."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from prunus.runtime.tasks.pose.card import ImagePreprocess, KeypointPostprocess
from prunus.runtime.tasks.pose.heatmaps import joints_of_heatmaps
from prunus.runtime.tasks.pose.metric import (
    POSE_HEATMAPS,
    POSE_PIXELS,
    PoseMetric,
    hidden_scores,
    judges_pixels,
)
from prunus.runtime.tasks.pose.movenet import rows_to_pixels

METRIC = PoseMetric()
NAMES = ("nose", "eye", "ear", "toe")


def _card(decoder="udp_dark", *more, trained=True) -> SimpleNamespace:
    return SimpleNamespace(
        inputs=[SimpleNamespace(shape=(2, 256, 192, 3))],
        outputs=[SimpleNamespace(name=name, shape=(2, 4, 3)) for name in ("keypoints", *more)],
        weights=SimpleNamespace(trained=trained),
        preprocess=ImagePreprocess(256, 192, "udp_affine"),
        postprocess=KeypointPostprocess(decoder, "four", NAMES, (), (), (0.05,) * 4),
    )


def _joints(samples=5) -> np.ndarray:
    joints = np.full((samples, 4, 3), 50, np.float32)
    joints[..., 2] = 0.8
    return joints


def _measure(reference, suspect, card=None):
    return METRIC.measure({"keypoints": reference}, {"keypoints": suspect}, card or _card())


def test_distances_of_confident_joints() -> None:
    reference, suspect = _joints(), _joints()
    suspect[1, 2, :2] += (3, 4)  # five pixels
    suspect[3, 1, :2] += 100
    reference[3, 1, 2] = suspect[3, 1, 2] = 0.19  # not counted
    reference[0, 0, 2] = suspect[0, 0, 2] = 0.2  # just counted
    found = _measure(reference, suspect)
    assert found.values["judged_joints"] == 19
    assert found.values["mean_px"] == pytest.approx(5 / 19)
    assert found.values["p50_px"] == 0 and found.values["max_px"] == 5
    assert found.values["p99_px"] == pytest.approx(5 * 0.82)  # between the last two of nineteen
    assert found.notes[0] == "Judged 19 of 20 joints (reference score >= 0.2)."
    assert found.notes[1] == "Worst: sample 1, ear, 5 px at score 0.80."


def test_nobody_who_is_sure() -> None:
    reference = _joints()
    reference[..., 2] = 0.1
    found = _measure(reference, reference)
    assert found.values["judged_joints"] == 0 and math.isnan(found.values["mean_px"])
    assert found.values["worst_crop_p50_px"] == 0 and len(found.notes) == 1


def test_a_crop_or_a_joint_that_is_wrong_altogether() -> None:
    reference, suspect = _joints(), _joints()
    suspect[2, :, 0] += 8
    values = _measure(reference, suspect).values
    assert (values["worst_crop_p50_px"], values["worst_joint_p50_px"]) == (8, 0)
    suspect = _joints()
    suspect[:, 3, 1] -= 8
    values = _measure(reference, suspect).values
    assert (values["worst_crop_p50_px"], values["worst_joint_p50_px"]) == (0, 8)


@pytest.mark.parametrize(("sure", "told"), [(3, 8), (2, 0)])
def test_a_median_needs_three_joints(sure, told) -> None:
    reference = _joints()
    reference[2, sure:, 2] = 0.0
    suspect = reference.copy()
    suspect[2, :, 0] += 8
    assert _measure(reference, suspect).values["worst_crop_p50_px"] == told


def test_differences_of_scores() -> None:
    reference, suspect = _joints(), _joints()
    suspect[1, 0, 2] = 0.4
    values = _measure(reference, suspect).values
    assert values["score_max"] == pytest.approx(0.4)
    assert values["score_rms_relative"] == pytest.approx(0.5 / np.sqrt(20))
    assert values["worst_score_rms_relative"] == pytest.approx(0.5 / np.sqrt(4))


def test_heatmaps_as_shares_of_their_range() -> None:
    joints, maps = _joints(2), np.zeros((2, 4, 4, 4), np.float32)
    maps[0, 0, 0, 0] = 4
    wrong = maps.copy()
    wrong[1, 1, 1, 1] = 2
    reference, suspect = ({"keypoints": joints, "heatmaps": m} for m in (maps, wrong))
    values = METRIC.measure(reference, suspect, _card()).values
    assert values["heatmap_max_relative"] == pytest.approx(0.5)
    assert values["heatmap_rms_relative"] == pytest.approx(np.sqrt(4 / 64) / 4)
    alone = METRIC.measure(reference, {"keypoints": joints}, _card()).values
    assert "heatmap_max_relative" not in alone


def test_what_cuts_did_to_tokens() -> None:
    joints = _joints(2)
    first, second = np.array([[0, 1, -1, -1], [0, -1, 1, -1]]), np.zeros((2, 4), int)
    swapped = np.array([[1, 0, -1, -1], [0, -1, -1, 1]])
    reference = {"keypoints": joints, "tokens_3": first, "tokens_6": second}
    suspect = {"keypoints": joints, "tokens_3": swapped, "tokens_6": second}
    for card_names in (["tokens_3", "tokens_6"], ["tokens_6", "tokens_3"]):
        order = {name: reference[name] for name in ("keypoints", *card_names)}
        values = METRIC.measure(order, suspect, _card("udp_dark", *card_names)).values
        assert values["tokens_equal"] == 0.5
        assert values["survivors_equal"] == 0.75  # all of the first, half of the second
        assert values["worst_survivors_equal"] == 0.5


def test_joints_are_decoded_as_the_card_says() -> None:
    rng = np.random.default_rng(0)
    maps = rng.random((2, 4, 64, 48)).astype(np.float32)
    rows = rng.random((2, 4, 3)).astype(np.float32)
    for decoder, raw, decoded in (
        ("heatmaps", maps, joints_of_heatmaps(maps, 256, 192)),
        ("movenet", rows, rows_to_pixels(rows, 256, 192)),
        ("regression", rows, rows),
        ("udp_dark", rows, rows),
    ):
        other = raw.copy()
        other[0, 0] = raw[1, 1]
        values = _measure(raw, other, _card(decoder, trained=False)).values
        theirs = decoded.copy()
        theirs[0, 0] = decoded[1, 1]
        expected = np.linalg.norm(theirs[0, 0, :2] - decoded[0, 0, :2])
        assert values["max_px"] == pytest.approx(expected, rel=1e-5), decoder


def test_random_weights_are_judged_by_heatmaps_unless_they_regress() -> None:
    random, regressed = _card(trained=False), _card("regression", trained=False)
    assert judges_pixels(_card()) and judges_pixels(regressed) and not judges_pixels(random)
    joints = _joints()
    joints[..., 2] = 0.0
    for card in (random, regressed, _card("regression")):  # scores say nothing there
        assert _measure(joints, joints, card).values["judged_joints"] == 20
    assert "random" in _measure(joints, joints, random).notes[0]
    assert _measure(joints, joints, regressed).notes[0] == "Judged 20 of 20 joints (all)."
    assert hidden_scores(random) == ("heatmaps", (2, 4, 64, 48))
    assert hidden_scores(_card()) is None
    assert hidden_scores(_card("udp_dark", "heatmaps", trained=False)) is None


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_limits_by_what_the_file_gives(precision) -> None:
    pixels, maps = POSE_PIXELS[precision], POSE_HEATMAPS[precision]
    assert METRIC.limits(_card(), precision) == pixels
    assert METRIC.limits(_card("udp_dark", "heatmaps"), precision) == pixels + maps
    assert METRIC.limits(_card(trained=False), precision) == maps
    tokens = METRIC.limits(_card("udp_dark", "tokens_3"), precision)[len(pixels) :]
    assert [f"{m.quantity} {m.describe()}" for m in tokens] == {
        "fp32": ["tokens_equal >= 1"],
        "fp16": ["survivors_equal >= 0.98", "worst_survivors_equal >= 0.8"],
        "int8": ["survivors_equal >= 0.95", "worst_survivors_equal >= 0.75"],
    }[precision]


def test_what_each_precision_may_cost() -> None:
    def told(table):
        return {p: {m.quantity: m.describe() for m in row} for p, row in table.items()}

    assert told(POSE_PIXELS) == {
        "fp32": {
            "max_px": "<= 0.01", "judged_joints": ">= 10", "score_rms_relative": "<= 0.001",
            "worst_score_rms_relative": "<= 0.01",
        },
        "fp16": {
            "mean_px": "<= 0.1", "p99_px": "<= 0.5", "worst_crop_p50_px": "<= 0.5",
            "worst_joint_p50_px": "<= 0.5", "judged_joints": ">= 10",
            "score_rms_relative": "<= 0.02", "worst_score_rms_relative": "<= 0.1",
        },
        "int8": {
            "mean_px": "<= 0.5", "worst_crop_p50_px": "<= 2", "worst_joint_p50_px": "<= 2",
            "judged_joints": ">= 10", "score_rms_relative": "<= 0.1",
            "worst_score_rms_relative": "<= 0.3",
        },
    }  # fmt: skip
    assert told(POSE_HEATMAPS) == {
        "fp32": {"heatmap_max_relative": "<= 0.0001"}, "fp16": {"heatmap_rms_relative": "<= 0.01"},
        "int8": {"heatmap_rms_relative": "<= 0.1"},
    }  # fmt: skip
