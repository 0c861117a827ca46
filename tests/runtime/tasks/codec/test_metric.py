"""Codes, sound and states of a codec, in numbers worked out by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from prunus.runtime.tasks.codec.metric import CodecMetric

METRIC = CodecMetric()


def _values(reference, suspect) -> dict[str, float]:
    return METRIC.measure(reference, suspect, None).values


def test_codes_of_all_outputs_and_of_the_worst_sample() -> None:
    codes = np.zeros((2, 2, 5), np.int64)
    wrong = codes.copy()
    wrong[1, :, 0] = 7
    for names in (("a", "b"), ("b", "a")):
        found = METRIC.measure(
            dict.fromkeys(names, codes), {"a": codes, "b": wrong}, None
        )
        assert found.values == {"codes_equal_percent": 90, "worst_codes_equal_percent": 80}
        assert "b: 18 of 20 codes equal." in found.notes and len(found.notes) == 2


def test_sound_counts_by_its_worst_sample() -> None:
    sound = np.ones((2, 100), np.float32)
    wrong = sound.copy()
    wrong[1] += 0.1
    assert _values({"sound": sound}, {"sound": wrong}) == {"snr_db": pytest.approx(20, abs=1e-4)}
    assert _values({"sound": sound}, {"sound": sound}) == {"snr_db": 300}


def test_states_count_together_and_by_their_worst_sample() -> None:
    state = np.ones((4, 100))
    wrong = state.copy()
    wrong[2] += 0.1
    found = _values({"s_next": state}, {"s_next": wrong})
    together = 20 + 10 * np.log10(4)
    assert found == {
        "state_snr_db": pytest.approx(together), "worst_state_snr_db": pytest.approx(20),
    }  # fmt: skip
    # A quiet sample is measured by what states are on the whole.
    quiet = state.copy()
    quiet[2] *= 1e-3
    off = quiet.copy()
    off[2] *= 2
    assert _values({"s_next": quiet}, {"s_next": off})["worst_state_snr_db"] > 55


def test_what_is_no_number_is_never_forgotten() -> None:
    sound, broken = np.ones((1, 9)), np.full((1, 9), np.nan)
    for names in (("a", "b"), ("b", "a")):
        found = _values(dict.fromkeys(names, sound), {"a": sound, "b": broken})
        assert np.isnan(found["snr_db"])


@pytest.mark.parametrize(
    ("precision", "codes", "worst", "sound", "states", "worst_state"),
    [("fp32", 100, 100, 90, 90, 60), ("fp16", 99, 50, 40, 20, 10), ("int8", 99, 50, 20, 8, 0)],
)
def test_limits_of_the_outputs_that_there_are(
    precision, codes, worst, sound, states, worst_state
) -> None:
    def told(**outputs):
        card = SimpleNamespace(
            outputs=[SimpleNamespace(name=n, dtype=d) for n, d in outputs.items()]
        )
        return {m.quantity: m.describe() for m in METRIC.limits(card, precision)}

    of_codes = {
        "codes_equal_percent": f">= {codes}", "worst_codes_equal_percent": f">= {worst}",
    }  # fmt: skip
    of_states = {"state_snr_db": f">= {states}", "worst_state_snr_db": f">= {worst_state}"}
    assert told(codes="int64") == of_codes
    assert told(sound="float32") == {"snr_db": f">= {sound}"}
    assert told(a_next="float32") == of_states
    everything = told(codes="int64", sound="float32", a_next="float16")
    assert everything == of_codes | of_states | {"snr_db": f">= {sound}"}
