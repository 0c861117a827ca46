"""DART against its loop over pivots and sets."""

import numpy as np
import pytest

from prunus.models.tokens.registry import build_reducer


@pytest.mark.parametrize(("words", "keep", "pivots"), [
    ("dart", 24, 8), ("dart(pivots=4)", 23, 4), ("dart(pivots=1)", 10, 1), ("dart", 3, 3),
])  # fmt: skip
def test_pivots_take_what_is_least_like_them(words, keep, pivots, bench):
    place = bench.place(keep=keep)
    x, side = bench.inputs(place)
    for picture, kept in enumerate(build_reducer(words, place)(x, side).kept):
        unit = bench.unit(x[picture, 2:])
        keys = side.attention[4].key[picture, :, 2:].numpy()
        length = [abs(keys[:, patch]).sum() for patch in range(48)]
        order = list(np.argsort(length)[::-1][:pivots])
        chosen = set(order)
        each, more = divmod(keep - pivots, pivots)
        for number, pivot in enumerate(order):
            free = [patch for patch in range(48) if patch not in chosen]
            free.sort(key=lambda patch: unit[pivot] @ unit[patch])
            chosen |= set(free[: each + (number < more)])
        assert kept.tolist() == sorted(chosen)
