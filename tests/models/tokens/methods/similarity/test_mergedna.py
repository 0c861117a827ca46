"""Windowed merging of a sequence against a loop over windows."""

import numpy as np
import pytest
import torch

from prunus.models.tokens.reducer import Side
from prunus.models.tokens.registry import build_reducer


@pytest.mark.parametrize(("window", "merged"), [(2, 1), (4, 1), (4, 2), (6, 2), (3, 1)])
def test_pairs_within_windows(window, merged, bench):
    windows = 48 // window
    place = bench.place(keep=48 - merged * windows, grid=(1, 48))
    x, side = bench.inputs(place)
    sizes = torch.randint(1, 5, (2, 50)).float()
    reducer = build_reducer(f"mergedna(window={window})", place)
    assert reducer.grid == (1, place.keep)  # a sequence again
    reduced = reducer(x, Side(side.attention, size=sizes))
    for picture in range(2):
        tokens, own = x[picture, 2:].numpy(), sizes[picture, 2:].numpy()
        expected, masses = [], []
        for start in range(0, 48, window):
            unit = bench.unit(tokens[start : start + window])
            even, odd = range(0, window, 2), range(1, window, 2)
            best = {a: max(odd, key=lambda b: unit[a] @ unit[b]) for a in even}
            gone = sorted(even, key=lambda a: -(unit[a] @ unit[best[a]]))[:merged]
            groups = [
                [t, *(a for a in gone if best[a] == t)] for t in range(window) if t not in gone
            ]
            for group in sorted(groups, key=min):
                weights = np.array([own[start + g] for g in group])
                masses.append(weights.sum())
                expected.append(weights @ tokens[[start + g for g in group]] / weights.sum())
        np.testing.assert_allclose(reduced.x[picture, 2:], expected, atol=1e-5)
        np.testing.assert_allclose(reduced.size[picture], masses)


def test_rounds_may_follow_one_another(bench):
    """Of a sequence a sequence comes: 48 -> 36 -> 27 by windows of 4 and of 4."""
    first = build_reducer("mergedna", bench.place(keep=36, grid=(1, 48)))
    second = build_reducer("mergedna", bench.place(tokens=36, keep=27, grid=first.grid))
    x, side = bench.inputs(first.place)
    once = first(x, side)
    sizes = torch.cat((torch.ones(2, 2), once.size), dim=1)
    twice = second(once.x, Side(size=sizes))
    assert twice.x.shape == (2, 29, 16)
    torch.testing.assert_close(twice.size.sum(dim=1), torch.full((2,), 48.0))
