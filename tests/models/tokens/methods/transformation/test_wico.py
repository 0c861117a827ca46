"""WiCo against a loop over cells, and what its order of channels is not."""

import numpy as np
import torch
from torch.nn import functional


def test_equals_the_loop(case, equals, counts, exports, restores, again):
    def restated(patches, levels, weights):
        joined = np.stack([own.reshape(-1) for own in again.cells(patches, 2, 2)])
        return again.linear(joined, weights, "proj")

    one = case("wico", 6)
    equals(one, 6, restated)
    counts(one)
    exports(one)
    restores(one, "delta")


def test_weights_behind_an_unfolding_need_their_columns_permuted(case):
    """`unfold` puts the channel first: the same layer, columns reordered, gives the same tokens."""
    one = case("wico", 6)
    x = one.tokens(1)
    proj, unfolded = one.reducer.proj, functional.unfold(
        x[:, 2:].transpose(1, 2).reshape(1, 8, 4, 6), 2, stride=2
    ).transpose(1, 2)  # fmt: skip
    wrong = functional.linear(unfolded, proj.weight, proj.bias)
    order = torch.arange(32).reshape(4, 8).T.flatten()
    right = functional.linear(unfolded, proj.weight[:, order], proj.bias)
    y = one.run(x).x[:, 2:]
    torch.testing.assert_close(right, y)
    assert (wrong - y).abs().max() > 0.1


def test_starts_as_average_pooling():
    from prunus.models.tokens.reducer import Place, Side
    from prunus.models.tokens.registry import build_reducer

    reducer = build_reducer("wico", Place(12, 3, grid=(1, 12), dim=4))
    x = torch.randn(1, 12, 4)
    expected = functional.avg_pool1d(x.transpose(1, 2), 4).transpose(1, 2)
    torch.testing.assert_close(reducer(x, Side()).x, expected)
    assert reducer.grid == (1, 3)
