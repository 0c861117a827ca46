"""Accuracy by a task's own function, and fidelity that says that it is none."""

import warnings

import numpy as np
import pytest

from prunus.export.common.samples import Samples
from prunus.export.planning.judge import DRAWS, Judge, Labelled, load_labelled
from prunus.runtime.card.card import ModelCard, Weights
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import SourceError, TensorError, UsageError

RNG = np.random.default_rng(0)
IMAGES = RNG.random((6, 3, 4, 4), np.float32)
LABELS = np.array([0, 1, 2, 0, 1, 2])
LABELLED = Labelled(Samples({"x": IMAGES}, "six.npz"), {"labels": LABELS})
CARD = ModelCard(
    "generic", "m", "v", "", "", "", Weights("", "", "", True),
    (TensorSpec("x", "float32", (1, 3, 4, 4), ("n", "c", "h", "w")),), (),
)  # fmt: skip


def top1(outputs, references):
    return (outputs["scores"].argmax(1) == references["labels"]).mean()


def scores(*classes):
    return {"scores": np.eye(3, dtype=np.float32)[list(classes)]}


def test_the_score_decides() -> None:
    judge = Judge(LABELLED, {}, top1, "nets:top1")
    whole, draws = judge(scores(0, 1, 2, 0, 0, 0))
    assert whole == pytest.approx(4 / 6)
    assert len(draws) == DRAWS and np.mean(draws) == pytest.approx(4 / 6, abs=0.06)
    assert judge.kind == "accuracy" and "nets:top1 on 6 samples of six.npz" in judge.describe()
    # The same samples are drawn for everything that is judged.
    assert judge(scores(0, 1, 2, 0, 0, 0))[1] == draws


def test_fidelity_is_the_mean_cosine_over_outputs_of_the_same_shape_and_says_what_it_is() -> None:
    dense = {"a": np.ones((6, 4), np.float32), "b": np.ones((6, 9, 2), np.float32)}
    judge = Judge(LABELLED, dense)
    turned = np.ones((6, 4), np.float32)
    turned[:3, :2] = -1  # orthogonal for three of six samples
    whole, draws = judge({"a": turned, "b": np.ones((6, 5, 2), np.float32)})
    assert whole == pytest.approx(0.5)
    assert set(np.round(np.array(draws) * 6).astype(int)) <= set(range(7))
    assert judge({"a": turned, "b": dense["b"]})[0] == pytest.approx(0.75)
    assert judge.kind == "fidelity" and "not accuracy" in judge.describe()


def test_outputs_of_other_shapes_only_are_not_judged() -> None:
    judge = Judge(LABELLED, {"a": np.ones((6, 4), np.float32)})
    assert judge({"a": np.ones((6, 3), np.float32)}) == (None, ())


def test_a_score_that_needs_all_classes_has_no_draws_but_a_value() -> None:
    def mean_over_classes(outputs, references):
        right = outputs["scores"].argmax(1) == references["labels"]
        return np.mean([right[references["labels"] == c].mean() for c in range(3)])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the mean of nothing
        whole, draws = Judge(LABELLED, {}, mean_over_classes, "f")(scores(0, 1, 2, 0, 0, 0))
    assert whole == pytest.approx(4 / 6) and draws == ()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda o, r: o["logits"], "fails: KeyError: 'logits'"),
        (lambda o, r: "much", "fails: ValueError"),
        (lambda o, r: float("nan"), "gives nan; expected a finite number"),
    ],
)
def test_a_score_that_fails_is_named(function, message) -> None:
    with pytest.raises(UsageError, match=message):
        Judge(LABELLED, {}, function, "nets:score")(scores(0, 1, 2, 0, 1, 2))


def test_a_score_without_references_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing to compare with"):
        Judge(Labelled(LABELLED.samples, {}), {}, top1, "nets:top1")


def test_one_file_holds_inputs_and_references(tmp_path) -> None:
    np.savez(tmp_path / "a.npz", x=IMAGES, labels=LABELS)
    whole = load_labelled(CARD, tmp_path / "a.npz", 64)
    assert not whole.noise and np.array_equal(whole.references["labels"], LABELS)
    part = load_labelled(CARD, tmp_path / "a.npz", 2)
    assert np.array_equal(part.samples["x"], IMAGES[[0, 5]])
    assert part.references["labels"].tolist() == [0, 2]


def test_noise_is_said(tmp_path) -> None:
    made = load_labelled(CARD, None, 64)
    assert made.noise and "noise" in Judge(made, {}).describe()


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ({"x": IMAGES, "labels": LABELS[:3]}, TensorError, "equally many"),
        ({"x": IMAGES, "scale": np.float32(2)}, TensorError, "equally many"),
        ({"x": np.float32(2)}, TensorError, "'x': 'no axis of'} samples; expected equally many"),
        ({"y": IMAGES}, TensorError, r"expected \['x'\]"),
        ({"x": IMAGES[:, :, :2]}, TensorError, "expected n of"),
        ({"x": IMAGES[:0]}, TensorError, "expected at least one"),
        ({}, TensorError, "holds nothing"),
        (None, SourceError, "not found"),
    ],
)
def test_calibration_that_does_not_fit(tmp_path, arrays, error, message) -> None:
    if arrays is not None:
        np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(error, match=message):
        load_labelled(CARD, tmp_path / "a.npz", 64)
