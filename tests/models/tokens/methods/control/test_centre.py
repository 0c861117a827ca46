"""The middle of the grid, round or as a rectangle."""

import pytest

from prunus.models.tokens.registry import build_reducer


def _build(words, keep, bench):
    place = bench.place(keep=keep)
    reducer = build_reducer(words, place)
    x, side = bench.inputs(place, 1)
    return reducer, reducer(x, side).kept[0].tolist()


@pytest.mark.parametrize("keep", [1, 4, 12, 31])
def test_the_nearest_to_the_middle(keep, bench):
    reducer, kept = _build("centre", keep, bench)
    assert len(kept) == keep and reducer.grid is None
    far = [(p // 8 - 2.5) ** 2 + (p % 8 - 3.5) ** 2 for p in range(48)]
    assert max(far[p] for p in kept) <= min(far[p] for p in range(48) if p not in kept)


def test_a_rectangle_is_a_grid_again(bench):
    reducer, kept = _build("centre(rows=6)", 24, bench)
    assert reducer.grid == (6, 4)
    assert kept == [row * 8 + column for row in range(6) for column in range(2, 6)]
