"""TokenLearner and TokenFuser against their formulas."""

import numpy as np
import pytest
import torch

from prunus.models.tokens.reducer import Place, Side
from prunus.models.tokens.registry import build_reducer
from prunus.runtime.errors import UsageError


def _score(again, x, weights, name):
    hidden = again.linear(again.norm(x, weights, f"{name}.0"), weights, f"{name}.1")
    return again.linear(again.gelu(hidden), weights, f"{name}.3")


def test_equals_the_formula(case, equals, counts, exports, restores, again):
    def restated(patches, levels, weights):
        share = again.softmax(_score(again, patches, weights, "scorer"), axis=0)
        return np.stack([sum(share[n, k] * patches[n] for n in range(24)) for k in range(5)])

    one = case("tokenlearner(width=6)", 5)
    equals(one, 5, restated)
    counts(one)
    exports(one, "learned")
    restores(one, "delta")


def test_the_fuser_equals_its_formula(case, again):
    one = case("tokenlearner(width=6)", 5)
    x, y = one.tokens(2), torch.randn(2, 7, 8)
    with torch.no_grad():
        back = one.reducer.restore(y, one.run(x), x, "learned")
    assert torch.equal(back[:, :2], y[:, :2])
    weights = one.weights()
    for picture in range(2):
        tokens, skip = (t[picture, 2:].numpy().astype(float) for t in (y, x))
        mixed = again.linear(again.norm(tokens, weights, "fuser.norm1").T, weights, "fuser.mix").T
        mixed = again.norm(mixed, weights, "fuser.norm2")
        gate = 1 / (1 + np.exp(-_score(again, skip, weights, "fuser.scorer")))
        np.testing.assert_allclose(back[picture, 2:], skip + gate @ mixed, rtol=1e-4, atol=1e-5)


def test_an_untrained_way_back_is_the_identity():
    reducer = build_reducer("tokenlearner", Place(24, 5, 2, dim=8))
    x = torch.randn(2, 26, 8)
    reduced = reducer(x, Side())
    back = reducer.restore(reduced.x + 1, reduced, x, "learned")
    assert torch.equal(back[:, 2:], x[:, 2:])
    back.square().sum().backward()
    assert reducer.fuser.norm2.bias.grad.abs().sum() > 0


def test_refuses_no_width():
    with pytest.raises(UsageError, match="'width' of method 'tokenlearner' is 0"):
        build_reducer("tokenlearner(width=0)", Place(24, 5, dim=8))
