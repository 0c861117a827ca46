"""TokenPacker against a loop over cells and heads."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from prunus.models.tokens.methods.transformation.tokenpacker import _middle
from prunus.runtime.errors import UsageError


def _mlp(again, x, weights, name):
    hidden = again.gelu(again.linear(x, weights, f"{name}.0"))
    return again.linear(hidden, weights, f"{name}.2")


def test_equals_the_loop(case, equals, counts, exports, restores, again):
    def restated(patches, levels, weights):
        joined = np.concatenate([levels[1], levels[3], patches], axis=1)
        fine = {
            name: again.linear(
                again.norm(_mlp(again, joined, weights, f"{name}_proj"), weights, f"ln_{name}"),
                weights,
                f"in_{name}",
            )
            for name in "kv"
        }
        keys, values = (again.cells(fine[name], 2, 2) for name in "kv")
        rows = []
        for own, k, v in zip(again.cells(patches, 2, 2), keys, values, strict=True):
            query = again.linear(own.mean(0, keepdims=True), weights, "q_proj")
            query = again.linear(again.norm(query, weights, "ln_q"), weights, "in_q")
            mixed = again.linear(again.attend(query, k, v), weights, "out")
            rows.append(_mlp(again, mixed, weights, "mlp")[0])
        return np.stack(rows)

    one = case("tokenpacker", 6)
    equals(one, 6, restated)
    counts(one)
    exports(one)
    restores(one, "delta")


@pytest.mark.parametrize("cell", [(2, 2), (3, 3), (4, 2), (1, 4)])
def test_the_middle_is_bilinear_downsampling(cell):
    image = torch.randn(1, 1, 3 * cell[0], 2 * cell[1])
    expected = functional.interpolate(image, size=(3, 2), mode="bilinear")
    cut = image.reshape(3, cell[0], 2, cell[1]).transpose(1, 2).reshape(3, 2, -1)
    torch.testing.assert_close((cut * _middle(cell)[:, 0]).sum(2), expected[0, 0])


def test_heads_that_do_not_divide(case):
    with pytest.raises(UsageError, match="3 heads for 8 channels"):
        case("tokenpacker(heads=3)", 6)
