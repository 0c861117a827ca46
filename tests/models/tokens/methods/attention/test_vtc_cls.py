"""VTC-CLS against its definition: a sum over blocks."""

import numpy as np
import pytest

from prunus.models.tokens.registry import build_reducer


@pytest.mark.parametrize(("words", "since", "blocks"), [
    ("vtc_cls", 0, [0, 1, 2, 3, 4]),
    ("vtc_cls", 3, [3, 4]),
    ("vtc_cls(start=1)", 0, [1, 2, 3, 4]),
    ("vtc_cls(start=4)", 0, [4]),
])  # fmt: skip
def test_sums_the_class_token_over_blocks(words, since, blocks, bench):
    place = bench.place(keep=11, since=since)
    x, side = bench.inputs(place)
    reducer = build_reducer(words, place)
    assert sorted({*reducer.reads_attention, 4}) == blocks
    for picture, kept in enumerate(reducer(x, side).kept):
        total = np.zeros(48)
        for block in blocks:
            for head in bench.probability(side, block)[picture]:
                total += head[0, 2:] / 2
        assert kept.tolist() == sorted(np.argsort(-total)[:11])
