"""AIM, stage 1: rounds of pairs on features, plain means of means."""

import numpy as np
import pytest

from prunus.models.tokens.registry import build_reducer


def _round(tokens, sizes, count, bench):
    unit = bench.unit(tokens)
    even, odd = range(0, len(tokens), 2), range(1, len(tokens), 2)
    best = {a: max(odd, key=lambda b: unit[a] @ unit[b]) for a in even}
    gone = sorted(even, key=lambda a: -(unit[a] @ unit[best[a]]))[:count]
    groups = [[a] for a in even if a not in gone]
    groups += [[b, *(a for a in gone if best[a] == b)] for b in odd]
    return (
        np.array([np.mean([tokens[g] for g in group], axis=0) for group in groups]),
        np.array([sum(sizes[g] for g in group) for group in groups]),
    )


@pytest.mark.parametrize(
    ("keep", "rounds"), [(40, [8]), (24, [24]), (12, [24, 12]), (10, [24, 12, 2])]
)
def test_rounds(keep, rounds, bench):
    place = bench.place(keep=keep)
    x, side = bench.inputs(place)
    reduced = build_reducer("aim", place)(x, side)
    for picture in range(2):
        tokens, sizes = x[picture, 2:].numpy().astype(np.float64), np.ones(48)
        for count in rounds:
            tokens, sizes = _round(tokens, sizes, count, bench)
        np.testing.assert_allclose(reduced.x[picture, 2:], tokens, atol=1e-5)
        np.testing.assert_allclose(reduced.size[picture], sizes)
