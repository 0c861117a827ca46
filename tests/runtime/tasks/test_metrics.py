"""Every output that a card declares is judged: a fault planted in any of them leaves its budget."""

import dataclasses

import numpy as np
import pytest

from prunus.models.zoo import model_path
from prunus.runtime.card.artifact import read_card
from prunus.runtime.card.card import ModelCard, Weights
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import ArtifactError, CheckFailedError
from prunus.runtime.references import load
from prunus.runtime.tasks import registry
from prunus.runtime.tasks.metrics import (
    Difference,
    differences,
    metric_for,
    noise_and_power,
    non_finite,
    peak,
    relative_rms,
    span,
    spread,
    worst_snr_db,
)
from prunus.runtime.tasks.pose.card import KeypointPostprocess
from prunus.runtime.tasks.segmentation.card import MaskPostprocess
from prunus.runtime.tasks.separation.card import SeparatorPostprocess

RNG = np.random.default_rng(5)
KEYPOINTS = KeypointPostprocess("udp_dark", "four", ("a", "b", "c", "d"), (), (), (0.05,) * 4)
MASK = MaskPostprocess("logits", ("x", "y"), ((0, 0, 0), (255, 0, 0)))


def _card(task, post, **outputs):
    specs = tuple(
        TensorSpec(name, array.dtype.name, array.shape[1:] or (1,), ("n",) * max(array.ndim - 1, 1))
        for name, array in outputs.items()
    )
    return ModelCard(
        task, "m", "v", "p", "Apache-2.0", "e", Weights("made", "0", "Apache-2.0", True),
        (TensorSpec("x", "float32", (1, 4), ("n", "c")),), specs, None, post,
    )  # fmt: skip


def _keypoints():
    places = RNG.uniform(0, 100, (20, 4, 2))
    return np.concatenate([places, RNG.uniform(0.3, 1, (20, 4, 1))], -1).astype(np.float32)


CASES = {
    "pose": (
        KEYPOINTS,
        {
            "keypoints": _keypoints(),
            "tokens_3": np.where(RNG.random((20, 24)) < 0.5, -1, 7).astype(np.int32),
            "heatmaps": RNG.random((20, 4, 8, 8)),
        },
    ),
    "segmentation": (MASK, {"logits": RNG.standard_normal((4, 2, 16, 16)).astype(np.float32)}),
    "codec": (
        None,
        {
            "codes": RNG.integers(0, 99, (3, 8)),
            "sound": RNG.standard_normal((3, 800)).astype(np.float32),
            "voice": RNG.standard_normal((3, 16)).astype(np.float32),
            "a_next": RNG.standard_normal((3, 16)).astype(np.float32),
        },
    ),
    "separation": (
        SeparatorPostprocess("voice"),
        {"voice": RNG.standard_normal((3, 800)).astype(np.float32)},
    ),
    "lips": (
        SeparatorPostprocess("lips"),
        {
            "lips": RNG.standard_normal((3, 8, 25)).astype(np.float32),
            "codes": RNG.integers(0, 99, (3, 25)),
        },
    ),
    "generic": (
        None,
        {
            "logits": RNG.standard_normal((9, 10)).astype(np.float32),
            "features": RNG.standard_normal((9, 3, 5)).astype(np.float32),
            "ids": RNG.integers(0, 99, (9, 4)),
        },
    ),
}
FAULTS = [(case, name) for case, (_, outputs) in CASES.items() for name in outputs]


def _broken(metric, card, expected, got, precision):
    values = metric.measure(expected, got, card).values
    return [m.quantity for m in metric.limits(card, precision) if not m.holds(values[m.quantity])]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize(("case", "name"), FAULTS)
def test_a_fault_in_any_output_is_found(case, name, precision) -> None:
    post, outputs = CASES[case]
    card = _card("separation" if case == "lips" else case, post, **outputs)
    metric = metric_for(card)
    assert _broken(metric, card, outputs, outputs, precision) == []
    halved = outputs[name].copy()
    if name == "keypoints":
        halved[..., 2] /= 2  # joints stay: only the scores are wrong
    elif halved.dtype.kind == "f":
        halved /= 2
    else:
        halved += 1
    assert _broken(metric, card, outputs, {**outputs, name: halved}, precision)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize(("case", "name"), FAULTS)
def test_a_fault_in_one_sample_of_many_is_found(case, name, precision) -> None:
    """As where the last of a batch is wrong, or one window of a recording."""
    post, outputs = CASES[case]
    outputs = {n: np.concatenate([v] * (120 // len(v))) for n, v in outputs.items()}
    card = _card("separation" if case == "lips" else case, post, **outputs)
    wrong = outputs[name].copy()
    if name == "keypoints":
        wrong[7, :, :2] += 30
    elif name == "heatmaps":
        wrong[7] = wrong[7, ::-1]
    elif wrong.dtype.kind == "f":
        wrong[7] = -wrong[7]
    else:
        wrong[7] += 1
    assert _broken(metric_for(card), card, outputs, {**outputs, name: wrong}, precision)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_one_joint_of_many_that_is_wrong_everywhere_is_found(precision) -> None:
    places = np.concatenate([RNG.uniform(0, 100, (60, 17, 2)), np.full((60, 17, 1), 0.9)], -1)
    outputs = {"keypoints": places.astype(np.float32)}
    card = _card("pose", KEYPOINTS, **outputs)
    wrong = outputs["keypoints"].copy()
    wrong[:, 9, :2] += 5
    assert _broken(metric_for(card), card, outputs, {"keypoints": wrong}, precision)


def test_rows_of_movenet_are_judged_in_pixels() -> None:
    """They are fractions of the input: 0.05 of 192 pixels is far, although 0.05 is little."""
    card = read_card(model_path("movenet_lightning"))
    rows = RNG.uniform(0.3, 0.9, (4, 1, 17, 3)).astype(np.float32)
    moved = rows.copy()
    moved[..., 0] += 0.05
    found = load("prunus.runtime.tasks.pose.metric:PoseMetric")().measure(
        {"keypoints": rows}, {"keypoints": moved}, card
    )
    assert found.values["mean_px"] == pytest.approx(0.05 * 192, rel=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_class_that_vanishes_is_found_however_small(precision) -> None:
    logits = np.zeros((8, 3, 40, 40), np.float32)
    logits[:, 0] = 2.0
    logits[:, 1, :4, :4] = 9.0  # 1 % of the pixels
    post = MaskPostprocess("class_ids", ("x", "y", "z"), ((0, 0, 0),) * 3)
    classes = {"classes": logits.argmax(1).astype(np.uint8)}
    card = _card("segmentation", post, **classes)
    assert _broken(metric_for(card), card, classes, classes, precision) == []
    gone = {"classes": np.zeros_like(classes["classes"])}
    assert _broken(metric_for(card), card, classes, gone, precision)


def test_worst_samples_by_hand() -> None:
    expected = np.array([[3.0, 4.0], [30.0, 40.0], [0.0, 0.0]])
    got = np.array([[3.0, 4.5], [30.0, 45.0], [0.0, 0.0]])
    # Own noise: 0.25, 25, 0 of powers 25, 2500, 0; the mean power is 841 2/3.
    assert relative_rms(expected, got) == pytest.approx(5 / 50)
    assert worst_snr_db(expected, got) == pytest.approx(20.0)
    loud = np.array([[0.0, 0.0], [30.0, 40.0], [0.0, 1.0]])
    # The third sample is silent: it counts as 30 dB below the mean power of the three.
    assert worst_snr_db(expected, loud) == pytest.approx(
        min(10 * np.log10(25 / 25), 10 * np.log10((2525 / 3 / 1000) / 1.0))
    )
    assert relative_rms(expected, expected) == 0.0
    assert worst_snr_db(expected, expected) == 300.0
    zeros = np.zeros((2, 3))
    assert relative_rms(zeros, zeros + 1e-9) == float("inf")
    assert worst_snr_db(zeros, zeros + 1e-9) == -300.0
    assert np.isnan(worst_snr_db(zeros, zeros + np.nan))
    assert relative_rms(np.zeros((0, 3)), np.zeros((0, 3))) == 0.0


def test_differences_by_hand() -> None:
    reference = {"a": np.array([[1.0, 5.0], [3.0, 1.0]]), "n": np.array([7], np.uint8)}
    suspect = {"n": np.array([9], np.uint8), "a": np.array([[1.0, 4.0], [3.0, 3.0]])}
    first, second = differences(reference, suspect)
    assert first == Difference("a", 2.0, 0.75, 0.5)
    assert (second.output, second.maximum, second.mean) == ("n", 2.0, 2.0)
    with pytest.raises(CheckFailedError, match=r"no output \['n'\]; it has \['a'\]"):
        differences(reference, {"a": suspect["a"]})
    for shape in ((2, 1), (2, 3), (3, 2), (1, 2), (4,)):
        with pytest.raises(CheckFailedError, match="Output 'a' has shape"):
            differences(reference, {**suspect, "a": np.zeros(shape)})


@pytest.mark.parametrize(("values", "width"), [
    ([1.0, 3.0, np.nan, np.inf], 2.0), ([-2.0, -8.0], 6.0), ([5.0, 5.0], 5e-6),
    ([-500.0], 5e-4), ([0.0, 0.0], 1e-30), ([np.nan], 1.0), ([], 1.0),
])  # fmt: skip
def test_the_span_of_values(values, width) -> None:
    assert span(np.array(values)) == pytest.approx(width, rel=1e-12)


def test_the_peak_of_nothing_and_of_nan() -> None:
    assert peak(np.zeros(0)) == 0.0 and peak(np.array([1.0, 3.0])) == 3.0
    assert np.isnan(peak(np.array([1.0, np.nan, 3.0])))


def test_values_that_are_not_finite_are_counted_and_placed() -> None:
    bad = np.zeros((4, 3), np.float32)
    bad[2, 1], bad[3] = np.nan, (np.inf, -np.inf, np.nan)
    outputs = {"fine": np.zeros(3), "ids": np.array([1]), "bad": bad}
    (told,) = non_finite(outputs, "runner")
    assert told == ("runner: output 'bad' holds 2 NaN and 2 Inf in 12 values, first in sample 2.")


def test_noise_and_power_by_hand() -> None:
    expected = np.array([[[1.0], [1.0]], [[3.0], [3.0]]])
    got = np.array([[[1.5], [0.5]], [[3.0], [5.0]]])
    noise, power = noise_and_power(expected, got, 0.0)
    np.testing.assert_allclose(noise, [0.25, 2.0])
    np.testing.assert_allclose(power, [5.0, 9.0])  # the mean of 1 and 9 holds for the quiet one
    np.testing.assert_allclose(noise_and_power(expected, got, 10.0)[1], [1.0, 9.0])
    assert relative_rms(expected[:1], got[:1]) == pytest.approx(0.5)
    one = np.stack([got[0], expected[1]])
    assert relative_rms(expected, one) == pytest.approx((0.25 / 5) ** 0.5)
    assert relative_rms(np.array([[2.0]]), np.array([[3.0]])) == pytest.approx(0.5)
    assert worst_snr_db(np.array([[2.0]]), np.array([[3.0]])) == pytest.approx(10 * np.log10(4))


def test_the_spread_over_draws_is_told() -> None:
    post, outputs = CASES["separation"]
    outputs = {"voice": RNG.standard_normal((9, 400)).astype(np.float32)}
    card = _card("separation", post, **outputs)
    noisy = outputs["voice"].copy()
    noisy[:2] *= 1.1  # 20 dB, in the first draw alone
    noisy[2:] *= 1.01
    (told,) = spread(outputs, {"voice": noisy}, card, ["snr_db", "unknown"])
    assert told == "In 4 disjoint draws of 2-3 samples: snr_db 20 to 40."
    (few,) = spread({"voice": noisy[:3]}, {"voice": noisy[:3]}, card, ["snr_db"])
    assert few == "3 samples are too few to tell how far the result depends on the draw."


def test_rounding_of_each_precision_passes() -> None:
    post, outputs = CASES["pose"]
    card = _card("pose", post, **outputs)
    near = {n: (v * (1 + 1e-5)).astype(v.dtype) for n, v in outputs.items()}
    assert _broken(metric_for(card), card, outputs, near, "fp32") == []


def test_every_task_lives_up_to_its_descriptor() -> None:
    for name in registry.TASKS:
        task = registry.task_named(name)
        assert task.name == name and task.label and task.judge()
        for kind, reference in {**task.preprocess, **task.postprocess}.items():
            kinds = [f.default for f in dataclasses.fields(load(reference)) if f.name == "kind"]
            assert kinds == [kind], reference
        for kind in task.estimators:
            assert kind in task.postprocess and callable(task.estimator(kind).open)
        for reference in (task.plan_lines, task.plan_summary, task.hidden_scores):
            assert not reference or callable(load(reference))


def test_a_task_is_one_row(monkeypatch) -> None:
    """A new task: its card opens, its metric judges, with one registration."""
    monkeypatch.setitem(registry.TASKS, "sorting", f"{__name__}:SORTING")
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _module())
    card = _card("sorting", None, y=np.zeros((1, 4), np.float32))
    assert ModelCard.from_json(card.to_json()) == card
    assert metric_for(card)


def _module():
    import types

    module = types.ModuleType(__name__)
    module.SORTING = SORTING
    return module


SORTING = registry.Task(
    "sorting", "sorting", {}, {}, metric="prunus.runtime.tasks.generic.metric:GenericMetric"
)


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(ArtifactError, match="did you mean 'pose'"):
        registry.task_named("posse")
