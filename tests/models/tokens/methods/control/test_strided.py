"""Evenly spaced patches."""

import pytest

from prunus.models.tokens.registry import build_reducer


@pytest.mark.parametrize(("tokens", "keep", "expected"), [
    (12, 3, [2, 6, 10]), (10, 4, [1, 3, 6, 8]), (5, 1, [2]), (7, 5, [0, 2, 3, 4, 6]),
])  # fmt: skip
def test_the_middle_of_equal_stretches(tokens, keep, expected, bench):
    place = bench.place(tokens=tokens, keep=keep, grid=None)
    x, side = bench.inputs(place)
    assert build_reducer("strided", place)(x, side).kept.tolist() == [expected] * 2


def test_a_row_stays_a_row(bench):
    assert build_reducer("strided", bench.place(grid=(1, 48))).grid == (1, 24)
    assert build_reducer("strided", bench.place(keep=25, grid=(1, 48))).grid is None
    assert build_reducer("strided", bench.place()).grid is None
