"""One verdict out of many: what passes, what is said of what does not, and how it is printed."""

import dataclasses
import json

import pytest

from prunus.export.verify.report import Comparison, Report, Verdict
from prunus.runtime.errors import CheckFailedError
from prunus.runtime.tasks.limits import Limit
from prunus.runtime.tasks.metrics import Difference

GOOD = Verdict(Limit("mean_px", 0.5), 0.25, True)
BAD = Verdict(Limit("share", 0.9, "at least"), 0.12345678, False)


def _comparison(*verdicts, **changes):
    return Comparison(
        "PyTorch", "onnxruntime 1.32.0", "fp16", (Difference("keypoints", 1.23456, 0.5, 0.01),),
        {"mean_px": 0.25, "seen": 7.0, "share": 0.12345678}, verdicts, **changes,
    )  # fmt: skip


def _report(*comparisons, **changes):
    return Report("m.onnx", "0123456789abcdef", "tiny", 5, "ff", comparisons, **changes)


@pytest.mark.parametrize(
    ("comparison", "passed"),
    [
        (_comparison(GOOD), True),
        (_comparison(GOOD, GOOD), True),
        (_comparison(GOOD, BAD), False),
        (_comparison(BAD, GOOD), False),
        (_comparison(), False),  # nothing was judged
        (_comparison(GOOD, problems=("NaN",)), False),
    ],
)
def test_a_comparison_passes_when_all_of_it_does(comparison, passed):
    assert comparison.passed is passed
    assert _report(comparison).passed is passed
    assert _report(_comparison(GOOD), comparison).passed is passed
    assert _report(comparison, _comparison(GOOD)).passed is passed


def test_no_comparison_is_no_pass():
    assert not _report().passed
    _report().raise_if_failed()  # nothing failed either
    _report(_comparison(GOOD)).raise_if_failed()


@pytest.mark.parametrize(
    ("comparison", "said"),
    [
        (_comparison(GOOD, BAD), "share is 0.1235, expected >= 0.9."),
        (_comparison(BAD, problems=("the output is NaN",)), "the output is NaN"),
        (_comparison(), "nothing was judged."),
    ],
)
def test_the_first_failure_is_named(comparison, said):
    with pytest.raises(CheckFailedError) as caught:
        _report(_comparison(GOOD), comparison, _comparison(GOOD)).raise_if_failed()
    told = f"m.onnx left its fp16 budget on onnxruntime 1.32.0: {said}"
    assert caught.value.message == told and "--bisect" in caught.value.hint
    assert caught.value.exit_code == 1


def test_text_shows_every_value_beside_its_limit():
    shown = _comparison(GOOD, BAD, problems=("it is odd",), notes=("the worst is 3",))
    text = _report(shown, divergence=("at node 5",)).to_text()
    assert text.splitlines() == [
        "m.onnx  tiny  sha256 0123456789ab  5 samples",
        "",
        "onnxruntime 1.32.0 against PyTorch, fp16 budget",
        "  output                  max |diff|  mean |diff|   of range",
        "  keypoints                     1.23          0.5       0.01",
        "  effect                       value       budget           ",
        "  mean_px                       0.25       <= 0.5         ok",
        "  seen                             7            -           ",
        "  share                       0.1235       >= 0.9     FAILED",
        "  problem: it is odd",
        "  the worst is 3",
        "",
        "bisect",
        "  at node 5",
        "",
        "verdict: FAILED",
    ]
    short = _report(_comparison(GOOD)).to_text()
    assert "bisect" not in short and short.endswith("\nverdict: ok\n")


def test_json_carries_the_verdicts_and_null_for_what_is_no_number():
    poisoned = dataclasses.replace(GOOD, measured=float("nan"), passed=False)
    raw = json.loads(_report(_comparison(GOOD), _comparison(poisoned)).to_json())
    assert raw["passed"] is False and [c["passed"] for c in raw["comparisons"]] == [True, False]
    assert raw["comparisons"][1]["verdicts"][0]["measured"] is None
    assert raw["comparisons"][0]["verdicts"][0]["limit"]["value"] == 0.5
    assert json.loads(_report(_comparison(GOOD)).to_json())["passed"] is True
