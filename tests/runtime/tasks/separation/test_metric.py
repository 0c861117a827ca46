"""Decibels of a voice and of lip features, in numbers worked out by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from prunus.runtime.tasks.separation.card import SeparatorPostprocess
from prunus.runtime.tasks.separation.metric import SeparationMetric, si_sdr_loss_db, snr_db

METRIC = SeparationMetric()


def _told(part: str, precision: str) -> dict[str, str]:
    card = SimpleNamespace(postprocess=SeparatorPostprocess(part))
    return {m.quantity: m.describe() for m in METRIC.limits(card, precision)}


def test_signal_to_noise() -> None:
    expected = np.array([3.0, -1, 0, 0], np.float32)  # a power of 10
    assert snr_db(expected, expected + np.array([0, 0, 0.1, 0])) == pytest.approx(30)
    assert snr_db(expected, -expected) == pytest.approx(-10 * math.log10(4))
    assert snr_db(expected, expected) == math.inf
    assert snr_db(0 * expected, expected) == -math.inf
    assert snr_db(0 * expected, 0 * expected) == math.inf
    assert math.isnan(snr_db(expected[:0], expected[:0]))


@pytest.mark.parametrize(
    ("snr", "loss"), [(16.0, 10 * math.log10(2)), (32.3, 0.1), (27.46, 0.3), (math.inf, 0.0)]
)
def test_loss_of_a_voice_that_is_16_db_clean(snr, loss) -> None:
    assert si_sdr_loss_db(snr) == pytest.approx(loss, abs=0.002)


def test_the_worst_window_of_a_voice_counts() -> None:
    voice = np.ones((3, 100), np.float32)
    wrong = voice.copy()
    wrong[1] += 0.1
    wrong[2] += 0.01
    found = METRIC.measure({"voice": voice}, {"voice": wrong}, None)
    assert found.values["snr_db"] == pytest.approx(20, abs=1e-4)
    assert found.values["si_sdr_loss_db"] == pytest.approx(10 * math.log10(1 + 10**-0.4), abs=1e-4)
    assert found.notes[0].startswith("Worst of 3 windows: 20.0 dB; SI-SDR loss is for a voice that")


def _lips(frames=8) -> dict[str, np.ndarray]:
    return {"lips": np.ones((2, 3, frames), np.float32), "codes": np.zeros((2, frames), int)}


def test_features_beside_another_code_are_not_judged() -> None:
    reference, suspect = _lips(), _lips()
    suspect["codes"][1, 4] = 1
    suspect["lips"][1, :, 3:6] = 50
    found = METRIC.measure(reference, suspect, None)
    assert found.values["codes_equal_percent"] == pytest.approx(100 * 15 / 16)
    assert found.values["worst_codes_equal_percent"] == pytest.approx(100 * 7 / 8)
    assert found.values["lips_snr_db"] == math.inf
    assert found.notes == ("15 of 16 codes equal; features of 13 judged.",)
    for frame in (2, 6):
        suspect = {name: values.copy() for name, values in suspect.items()}
        suspect["lips"][1, :, frame] += 0.1
        assert 20 < METRIC.measure(reference, suspect, None).values["lips_snr_db"] < 30


@pytest.mark.parametrize("frame", [0, 7])
def test_a_code_at_the_edge_reaches_to_one_side(frame) -> None:
    reference, suspect = _lips(), _lips()
    suspect["codes"][0, frame] = 1
    assert "of 14 judged" in METRIC.measure(reference, suspect, None).notes[0]


def test_where_no_code_is_equal_no_feature_is_judged() -> None:
    reference, suspect = _lips(), _lips()
    suspect["codes"] += 1
    values = METRIC.measure(reference, suspect, None).values
    assert values["codes_equal_percent"] == 0 and math.isnan(values["lips_snr_db"])


def test_what_each_precision_may_cost() -> None:
    assert [_told("voice", p) for p in ("fp32", "fp16", "int8")] == [
        {"snr_db": ">= 90"}, {"si_sdr_loss_db": "<= 0.1"}, {"si_sdr_loss_db": "<= 0.3"},
    ]  # fmt: skip
    for precision, equal, worst, snr in (
        ("fp32", 100, 100, 90), ("fp16", 99, 50, 40), ("int8", 99, 50, 30),
    ):  # fmt: skip
        assert _told("lips", precision) == {
            "codes_equal_percent": f">= {equal}", "worst_codes_equal_percent": f">= {worst}",
            "lips_snr_db": f">= {snr}",
        }  # fmt: skip
