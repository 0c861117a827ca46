"""ToDRE's greedy k-center, against a loop over sets."""

import numpy as np
import pytest

from prunus.models.tokens.registry import build_reducer


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("keep", [1, 2, 12])
def test_the_next_is_the_farthest(keep, class_token, bench):
    place = bench.place(keep=keep, class_token=class_token)
    x, side = bench.inputs(place)
    for picture, kept in enumerate(build_reducer("todre", place)(x, side).kept):
        unit = bench.unit(x[picture, 2:])
        distance = 1 - unit @ unit.T
        if class_token:
            first = int(np.argmax(bench.probability(side)[picture, :, 0, 2:].mean(axis=0)))
        else:
            alone = distance + 9 * np.eye(48)
            first = int(np.argmax(alone.min(axis=1)))
        chosen = [first]
        while len(chosen) < keep:
            rest = [patch for patch in range(48) if patch not in chosen]
            chosen.append(max(rest, key=lambda p: min(distance[p, q] for q in chosen)))
        assert kept.tolist() == sorted(chosen)
