"""The three quantities of any output, in numbers worked out by hand, and whose limits apply."""

from types import SimpleNamespace

import numpy as np
import pytest

from prunus.runtime.tasks.generic.metric import LIMITS, GenericMetric, cosines, worst_cosine

METRIC = GenericMetric()


def _card(**outputs) -> SimpleNamespace:
    return SimpleNamespace(
        outputs=[SimpleNamespace(dtype=dtype, shape=shape) for dtype, shape in outputs.values()]
    )


def _values(reference, suspect) -> dict[str, float]:
    return METRIC.measure(reference, suspect, None).values


def test_cosines_of_samples() -> None:
    # Not as many samples as values, and none of length 1: lengths along the wrong axis would show.
    first = np.array([[[3.0, 0], [4, 0]], [[1, 1], [1, 1]], [[2, 0], [0, 0]]], np.float32)
    second = np.array([[[4.0, 0], [3, 0]], [[-5, -5], [-5, -5]], [[0, 7], [0, 0]]], np.float32)
    np.testing.assert_allclose(cosines(first, second), [24 / 25, -1, 0], atol=1e-12)
    assert worst_cosine(first, second) == pytest.approx(-1)
    assert cosines(first, 3 * first).max() <= 1.0
    np.testing.assert_allclose(cosines(first, 3 * first), 1)


def test_zeros_are_like_zeros_alone() -> None:
    zeros, ones = np.zeros((1, 3)), np.ones((1, 3))
    assert cosines(zeros, zeros) == 1
    assert cosines(zeros, ones) == cosines(ones, zeros) == 0
    assert worst_cosine(zeros[:0], zeros[:0]) == 1


def test_scores_are_judged_by_direction_size_and_choice() -> None:
    reference = np.array([[3.0, 4, 0], [0, 0, 5], [5, 0, 0], [0, 5, 0]])
    suspect = reference.copy()
    suspect[0] = [4, 3, 0]
    values = _values({"a": reference}, {"a": suspect})
    assert values == {
        "cosine": pytest.approx(24 / 25),
        "rms_relative": pytest.approx(np.sqrt(2) / 5),
        "top1_equal": 0.75,
    }


def test_a_choice_needs_rows_of_several_scores() -> None:
    for shape in ((4, 1), (4, 2, 3), (4,)):
        ones = np.ones(shape)
        assert set(_values({"a": ones}, {"a": ones})) == {"cosine", "rms_relative"}


def test_whole_numbers_are_judged_by_how_many_are_equal() -> None:
    reference = np.arange(20).reshape(2, 2, 5)
    suspect = reference.copy()
    suspect[1, 0, :2] += 1
    values = _values({"a": reference}, {"a": suspect})
    assert values == {"values_equal": pytest.approx(0.9), "worst_values_equal": pytest.approx(0.8)}
    nothing = np.zeros((0, 3), np.int64)
    assert _values({"a": nothing}, {"a": nothing}) == dict.fromkeys(values, 1.0)


def test_the_worst_output_counts_whatever_their_order() -> None:
    good = np.array([[3.0, 4], [0, 5]])
    bad = np.array([[4.0, 3], [0, 5]])
    for names in (("a", "b"), ("b", "a")):
        reference = dict.fromkeys(names, good)
        found = METRIC.measure(reference, {"a": bad, "b": good}, None)
        assert found.values["cosine"] == pytest.approx(24 / 25)
        assert found.values["rms_relative"] == pytest.approx(np.sqrt(2) / 5)
        assert found.values["top1_equal"] == 0.5
        assert [note.partition(":")[0] for note in found.notes] == list(names)
    assert "a: cosine 0.96, rms_relative 0.282843, top1_equal 0.5." in found.notes


@pytest.mark.parametrize("precision", sorted(LIMITS))
def test_limits_of_the_outputs_that_there_are(precision) -> None:
    def names(**outputs):
        return [limit.quantity for limit in METRIC.limits(_card(**outputs), precision)]

    floats, whole = ["cosine", "rms_relative"], ["values_equal", "worst_values_equal"]
    assert names(a=("float32", (4, 5))) == [*floats, "top1_equal"]
    assert names(a=("float16", (4, 1))) == names(a=("float32", (4, 5, 6))) == floats
    assert names(a=("int32", (4, 5))) == names(a=("bool", (4, 5))) == whole
    assert names(a=("int32", (4,)), b=("float32", (4,))) == floats + whole
    assert names() == []


def test_what_each_precision_may_cost() -> None:
    limits = {p: {q: (m.value, m.kind) for q, m in row.items()} for p, row in LIMITS.items()}
    least, most = "at least", "at most"
    assert limits["fp32"] == {
        "cosine": (0.999999, least), "rms_relative": (1e-3, most), "top1_equal": (1.0, least),
        "values_equal": (1.0, least), "worst_values_equal": (1.0, least),
    }  # fmt: skip
    assert limits["fp16"] == {
        "cosine": (0.999, least), "rms_relative": (0.03, most), "top1_equal": (0.99, least),
        "values_equal": (0.99, least), "worst_values_equal": (0.5, least),
    }  # fmt: skip
    assert limits["int8"] == {
        "cosine": (0.98, least), "rms_relative": (0.2, most), "top1_equal": (0.95, least),
        "values_equal": (0.98, least), "worst_values_equal": (0.5, least),
    }  # fmt: skip
