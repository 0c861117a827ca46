"""ATS against the sampling of its code, with the slots of duplicates handed on."""

import numpy as np
import pytest

from prunus.models.tokens.registry import build_reducer


@pytest.mark.parametrize("keep", [1, 2, 9, 30, 47])
def test_levels_pick_patches(keep, bench):
    place = bench.place(keep=keep)
    x, side = bench.inputs(place, 4)
    kept = build_reducer("ats", place)(x, side).kept
    repeats = 0
    for picture in range(4):
        paid = bench.probability(side)[picture, :, 0, 2:].mean(axis=0)
        value = side.attention[4].value[picture, :, 2:].numpy()
        length = [np.linalg.norm(value[:, patch]) for patch in range(48)]
        score = paid * length / (paid * length).sum()
        order = np.argsort(score)
        total = np.cumsum(score[order])
        level = (total - total[0]) / (total[-1] - total[0])
        start = level[level > 0].min()
        wanted = [start + (1 - start) * k / (keep - 1) for k in range(keep)] if keep > 1 else [1.0]
        picked = {int(order[np.argmin(abs(level - w))]) for w in wanted}
        repeats += keep - len(picked)
        rest = [int(patch) for patch in np.argsort(-score) if patch not in picked]
        assert kept[picture].tolist() == sorted([*picked, *rest[: keep - len(picked)]])
    assert repeats or keep < 30
