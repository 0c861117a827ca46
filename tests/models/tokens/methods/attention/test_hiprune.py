"""HiPrune's index set against its three steps, on a thousand random maps and both forms."""

import numpy as np
import pytest
import torch

from prunus.models.tokens.methods.attention import hiprune
from prunus.models.tokens.methods.attention.hiprune import HiPrune
from prunus.models.tokens.reducer import Place, Side


def _three_steps(found, deep, grid, keep, anchors, literal):
    """The definition, with sets: anchors, their neighbours, then the best of the rest."""
    rows, columns = grid
    count = rows * columns
    union = set()
    for anchor in np.argsort(-found)[:anchors]:
        if literal:
            steps = (0, 1, -1, columns, -columns)
            union |= {min(max(int(anchor) + step, 0), count - 1) for step in steps}
        else:
            row, column = divmod(int(anchor), columns)
            for r, c in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)):
                if 0 <= row + r < rows and 0 <= column + c < columns:
                    union.add((row + r) * columns + column + c)
    rest = [int(patch) for patch in np.argsort(-deep) if patch not in union]
    return sorted([*union, *rest[: keep - len(union)]])


@pytest.mark.parametrize("literal", [False, True])
def test_thousand_maps(literal, monkeypatch):
    """The two maps are given instead of computed: the scores are tested elsewhere."""
    generator = torch.Generator().manual_seed(3)
    maps = {
        1: torch.rand(1000, 63, generator=generator),
        2: torch.rand(1000, 63, generator=generator),
    }
    monkeypatch.setattr(hiprune, "column_mean", lambda block, special: maps[block])
    reducer = HiPrune(
        Place(63, 32, grid=(7, 9), block=2), alpha=0.5, object_block=1, literal=literal
    )
    assert reducer.anchors == 3
    kept = reducer(torch.zeros(1000, 63, 4), Side({1: 1, 2: 2})).kept
    wrapped = 0
    for got, found, deep in zip(kept.tolist(), maps[1].numpy(), maps[2].numpy(), strict=True):
        assert got == _three_steps(found, deep, (7, 9), 32, 3, literal)
        wrapped += got != _three_steps(found, deep, (7, 9), 32, 3, not literal)
    assert wrapped > 100  # the two forms do differ


def test_scores_are_what_patches_receive_in_both_blocks(bench):
    place = bench.place(keep=20)
    x, side = bench.inputs(place)
    reducer = HiPrune(place, alpha=0.5, object_block=1)
    for picture, kept in enumerate(reducer(x, side).kept.tolist()):
        found, deep = (
            bench.probability(side, block)[picture].mean(axis=(0, 1))[2:] for block in (1, 4)
        )
        assert kept == _three_steps(found, deep, (6, 8), 20, 2, False)


def test_the_middle_block_is_half_way_to_the_last_cut(bench):
    assert HiPrune(bench.place()).reads_attention == (2,)
    assert HiPrune(bench.place(block=7, since=4)).reads_attention == (5,)
    assert HiPrune(bench.place(), alpha=0).reads_attention == ()
    assert HiPrune(bench.place(keep=4)).anchors == 0  # an anchor with neighbours needs 5
