"""The four scores against loops over heads."""

import numpy as np
import pytest

from prunus.models.tokens.registry import build_reducer


def _scores(side, bench, picture):
    seen = bench.probability(side)[picture]
    query, key, value = (part[picture].numpy().astype(np.float64) for part in side.attention[4])
    paid = sum(head[0, 2:] for head in seen) / 2
    length = np.array([np.sqrt((value[:, 2 + p] ** 2).sum()) for p in range(48)])
    logit = sum(query[h, 0] @ key[h, 2:].T / np.sqrt(8) for h in range(2)) / 2
    received = sum(row[2:] for head in seen for row in head) / (2 * 50)
    return {"class": paid, "value": paid * length, "logit": logit, "received": received}


@pytest.mark.parametrize("by", ["class", "value", "logit", "received"])
def test_keeps_the_highest(by, bench):
    place = bench.place(keep=13)
    x, side = bench.inputs(place)
    reducer = build_reducer(f"top(by={by})", place)
    score = reducer.score(x[:, 2:], side)
    for picture, kept in enumerate(reducer(x, side).kept):
        expected = _scores(side, bench, picture)[by]
        if by == "value":
            expected = expected / expected.sum()
        np.testing.assert_allclose(score[picture], expected, rtol=1e-5, atol=1e-7)
        assert kept.tolist() == sorted(np.argsort(-expected)[:13])


def test_only_what_patches_receive_needs_no_class_token(bench):
    build_reducer("top(by=received)", bench.place(class_token=False))
