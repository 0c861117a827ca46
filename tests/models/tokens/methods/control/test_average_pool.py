"""Means of cells against loops."""

import numpy as np
import pytest
import torch

from prunus.models.tokens.reducer import Side
from prunus.models.tokens.registry import build_reducer


@pytest.mark.parametrize(("keep", "cell"), [(12, (2, 2)), (8, (3, 2)), (4, (3, 4)), (1, (6, 8))])
def test_cells_as_square_as_can_be(keep, cell, bench):
    place = bench.place(keep=keep)
    x, side = bench.inputs(place)
    reducer = build_reducer("average_pool", place)
    assert reducer.grid == (6 // cell[0], 8 // cell[1])
    reduced = reducer(x, side)
    grid = x[:, 2:].numpy().reshape(2, 6, 8, 16)
    means = [
        grid[:, r : r + cell[0], c : c + cell[1]].mean(axis=(1, 2))
        for r in range(0, 6, cell[0])
        for c in range(0, 8, cell[1])
    ]
    np.testing.assert_allclose(reduced.x[:, 2:], np.stack(means, axis=1), atol=1e-6)
    assert (reduced.size == cell[0] * cell[1]).all()


def test_a_second_pool_counts_the_sizes_of_the_first(bench):
    place = bench.place(keep=12)
    x, _ = bench.inputs(place)
    sizes = torch.full((2, 50), 4.0)
    reduced = build_reducer("average_pool", place)(x, Side(size=sizes))
    assert (reduced.size == 16).all()
