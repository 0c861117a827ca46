"""One colour of the grid, fewer of it, or more."""

import pytest

from prunus.models.tokens.registry import build_reducer


def _kept(keep, bench, grid=(6, 8)):
    place = bench.place(tokens=grid[0] * grid[1], keep=keep, grid=grid)
    x, side = bench.inputs(place, 1)
    return build_reducer("checkerboard", place)(x, side).kept[0].tolist()


@pytest.mark.parametrize("grid", [(6, 8), (3, 5)])
def test_half_is_one_colour(grid, bench):
    half = (grid[0] * grid[1] + 1) // 2
    expected = [r * grid[1] + c for r in range(grid[0]) for c in range(grid[1]) if (r + c) % 2 == 0]
    assert _kept(half, bench, grid) == expected


def test_fewer_are_of_that_colour_and_more_hold_all_of_it(bench):
    half = set(_kept(24, bench))
    assert set(_kept(10, bench)) < half < set(_kept(30, bench))
