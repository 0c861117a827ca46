"""Which moments a gate silences: long shut times alone, with open edges, and for good."""

from __future__ import annotations

import numpy as np
import pytest

from prunus.runtime.errors import TensorError
from prunus.runtime.tasks.separation.lip_gate import LipGate, LipGateOptions

STEP = 640
FLOOR = 10 ** (-40 / 20)


def _gate(openings, **words) -> LipGate:
    gate = LipGate(STEP, **words)
    for opening in openings:
        gate.see(opening)
    return gate


def _at_ends(gate: LipGate, frames: range) -> np.ndarray:
    return np.array([gate.gains((k + 1) * STEP - 1, 1)[0] for k in frames])


def _expected(openings, hold=5, margin=2) -> np.ndarray:
    """Say it in another way: of each run of shut frames that is long enough, all but its edges."""
    gains, k = np.ones(len(openings)), 0
    while k < len(openings):
        end = k
        while end < len(openings) and openings[end] is not None and openings[end] < 0.06:
            end += 1
        if end - k >= hold:
            gains[k + margin : end - (margin if end < len(openings) else 0)] = FLOOR
        k = max(end, k + 1)
    return gains


@pytest.mark.parametrize("seed", range(20))
def test_every_long_shut_time_is_silent_but_for_its_edges(seed):
    chance = np.random.default_rng(seed)
    lengths = chance.integers(1, 12, 30)
    openings = [o for k, n in enumerate(lengths) for o in [(0.3, 0.01, None)[k % 3]] * int(n)]
    gate = _gate(openings)
    np.testing.assert_allclose(
        _at_ends(gate, range(len(openings))), _expected(openings)
    )


def test_silence_begins_within_a_fifth_of_a_second_also_without_a_view_of_what_comes():
    gate, gains = LipGate(STEP), []
    for k in range(40):
        gate.see(0.2 if k < 10 else 0.01)
        gains.append(gate.gains(k * STEP, STEP))
    sound = np.concatenate(gains)
    assert (sound[: 10 * STEP] == 1).all()
    assert (sound[15 * STEP :] <= 10 ** (-30 / 20)).all()


def test_pieces_of_any_size_get_the_same_gains_and_they_never_jump():
    openings = [0.2] * 10 + [0.01] * 15 + [0.2] * 10
    whole = _gate(openings).gains(0, 35 * STEP)
    for size in (1, 7, 640, 1000):
        gate = _gate(openings)
        pieces = [gate.gains(at, min(size, 35 * STEP - at)) for at in range(0, 35 * STEP, size)]
        np.testing.assert_array_equal(np.concatenate(pieces), whole)
    assert np.abs(np.diff(whole)).max() <= 1.01 / STEP


def test_an_answer_stays_and_the_past_is_forgotten():
    gate = _gate([0.2] * 5 + [0.01] * 5)
    before = gate.gains(0, 10 * STEP)
    gate.see(0.2)  # had it been known, the last two shut frames would have been audible
    np.testing.assert_array_equal(gate.gains(9 * STEP, STEP), before[9 * STEP :])
    gate.gains(100 * STEP, STEP)
    with pytest.raises(TensorError, match=f"samples from 0; expected none before {99 * STEP}"):
        gate.gains(0, STEP)
    with pytest.raises(TensorError):
        gate.gains(-1, 1)


def test_a_gate_that_comes_late_lets_through_what_it_did_not_see():
    gate = _gate([0.01] * 20, first_frame=100_000)
    assert (gate.gains(99_980 * STEP, 21 * STEP) == 1).all()
    assert (gate.gains(100_005 * STEP, 10 * STEP) <= FLOOR * 1.01).all()


def test_hours_take_no_more_memory_than_minutes():
    gate = LipGate(STEP)
    for k in range(5000):
        gate.see(0.01 if k // 50 % 2 else 0.3)
        gate.gains(k * STEP, STEP)
    assert max(len(gate._runs), len(gate._said)) <= 1500


def test_settings_count():
    gate = _gate([0.1] * 20, options=LipGateOptions(shut=0.2, hold=3, margin=1, floor_db=-20))
    np.testing.assert_allclose(_at_ends(gate, range(2, 18)), 0.1, atol=1e-6)
