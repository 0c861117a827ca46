"""The assignment against all permutations."""

import itertools

import numpy as np
import pytest

from prunus.runtime.tasks.pose.assignment import assign


@pytest.mark.parametrize("seed", range(40))
def test_total_is_the_best_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(1, 6, 2)
    gain, minimum = rng.uniform(0, 1, (rows, columns)), 0.3
    pairs = assign(gain, minimum)
    assert len({r for r, _ in pairs}) == len({c for _, c in pairs}) == len(pairs)
    assert all(gain[p] >= minimum for p in pairs)
    useful = np.where(gain >= minimum, gain, 0)
    if rows > columns:
        useful = useful.T
    best = max(
        sum(useful[i, c] for i, c in enumerate(order))
        for order in itertools.permutations(range(useful.shape[1]), useful.shape[0])
    )
    assert sum(gain[p] for p in pairs) == pytest.approx(best)


def test_nothing_to_pair() -> None:
    assert assign(np.zeros((0, 3)), 0.1) == []
    assert assign(np.zeros((3, 0)), 0.1) == []
    assert assign(np.zeros((2, 2)), 0.1) == []
