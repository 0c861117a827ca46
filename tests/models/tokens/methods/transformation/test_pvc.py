"""PVC's unshuffle against a loop over cells."""

import numpy as np


def test_equals_the_loop(case, equals, counts, exports, restores, again):
    def restated(patches, levels, weights):
        joined = np.stack([own.reshape(-1) for own in again.cells(patches, 2, 2)])
        hidden = again.linear(again.norm(joined, weights, "mlp.norm", 1e-5), weights, "mlp.fc1")
        return again.linear(again.gelu(hidden), weights, "mlp.fc2")

    one = case("pvc", 6)
    equals(one, 6, restated)
    counts(one)
    exports(one)
    restores(one, "delta")
