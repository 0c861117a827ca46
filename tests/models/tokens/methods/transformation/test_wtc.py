"""Windowed content pooling against loops over cells and channels."""

import numpy as np
import torch


def test_equals_the_loop(case, equals, counts, exports, restores, again):
    def restated(patches, levels, weights):
        rows = []
        for own in again.cells(patches, 2, 2):
            given = np.stack([np.concatenate((patch, own.mean(0))) for patch in own])
            hidden = again.gelu(again.linear(given, weights, "fc1"))
            share = again.softmax(again.linear(hidden, weights, "fc2"), axis=0)
            rows.append([(share[:, c] * own[:, c]).sum() for c in range(own.shape[1])])
        return np.array(rows)

    one = case("wtc", 6)
    equals(one, 6, restated)
    counts(one)
    exports(one)
    restores(one, "delta")


def test_reports_the_mean_weights_of_its_own_cell(case):
    one = case("wtc", 6)
    x = one.tokens(2)
    assign = one.run(x).assign
    torch.testing.assert_close(assign.sum(2), torch.ones(2, 6))
    weights = one.reducer.weights(one.reducer.cells(x[:, 2:])).mean(3)
    # Cell 4 is in the second row of cells, in the middle: patches 14, 15, 20, 21.
    torch.testing.assert_close(assign[:, 4, [14, 15, 20, 21]], weights[:, 4])
    assert torch.count_nonzero(assign[:, 4]) == 2 * 4
