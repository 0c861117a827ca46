"""The constant spread and the balance of BTP, against loops."""

import numpy as np
import pytest

from prunus.models.tokens.methods.attention.btp import farthest_points
from prunus.models.tokens.registry import build_reducer


@pytest.mark.parametrize("grid", [(1, 5), (4, 4), (6, 8)])
def test_each_point_is_as_far_as_can_be_from_those_before(grid):
    rows, columns = grid
    points = farthest_points(grid, rows * columns)
    assert sorted(points) == list(range(rows * columns))

    def distance(a, b):
        return abs(a // columns - b // columns) + abs(a % columns - b % columns)

    for count in range(1, len(points)):
        nearest = [min(distance(p, q) for q in points[:count]) for p in range(rows * columns)]
        assert nearest[points[count]] == max(nearest)
        assert points[count] == nearest.index(max(nearest))


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("spread", [0.0, 0.25, 1.0])
def test_spread_ones_first_then_the_best(spread, class_token, bench):
    place = bench.place(keep=12, class_token=class_token)
    x, side = bench.inputs(place)
    constant = farthest_points((6, 8), round(12 * spread))
    for picture, kept in enumerate(build_reducer(f"btp(spread={spread})", place)(x, side).kept):
        seen = bench.probability(side)[picture].mean(axis=0)
        score = seen[0, 2:] if class_token else seen.mean(axis=0)[2:]
        rest = [int(patch) for patch in np.argsort(-score) if patch not in constant]
        assert kept.tolist() == sorted(constant + rest[: 12 - len(constant)])
