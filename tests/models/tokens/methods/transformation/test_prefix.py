"""Prefix truncation is a slice."""

import torch


def test_is_the_head_of_the_tokens(case, counts, exports, restores):
    one = case("prefix", 7)
    for batch in (1, 2, 5):
        x = one.tokens(batch)
        reduced = one.run(x)
        assert torch.equal(reduced.x, x[:, :9])
        assert reduced.kept.tolist() == [list(range(7))] * batch
    assert one.reducer.grid is None
    counts(one)
    exports(one)
    restores(one, "delta")
