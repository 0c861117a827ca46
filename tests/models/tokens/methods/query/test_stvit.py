"""Semantic tokens and their recovery against loops over windows."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from prunus.models.tokens.reducer import Place, Side
from prunus.models.tokens.registry import build_reducer
from prunus.runtime.errors import UsageError


def _semantic(again, patches, weights, window, samples):
    """Each window's tokens: PyTorch's adaptive pooling, then attention to them and the patch."""
    (high, wide), image = window, patches.reshape(4, 6, 8)
    coarse = np.zeros((4 // high * samples, 6 // wide * samples, 8))
    reach = min(high + 3, 4), min(wide + 3, 6)
    for row, column in np.ndindex(4 // high, 6 // wide):
        top, left = row * high, column * wide
        own = torch.from_numpy(image[top : top + high, left : left + wide]).permute(2, 0, 1)
        pooled = functional.adaptive_max_pool2d(own[None], samples)[0].flatten(1).T.numpy()
        up = min(max(top - (reach[0] - high) // 2, 0), 4 - reach[0])
        back = min(max(left - (reach[1] - wide) // 2, 0), 6 - reach[1])
        around = image[up : up + reach[0], back : back + reach[1]].reshape(-1, 8)
        made = again.block(pooled, weights, "make.block", np.concatenate((pooled, around)))
        for k, (i, j) in enumerate(np.ndindex(samples, samples)):
            coarse[row * samples + i, column * samples + j] = made[k]
    return coarse.reshape(-1, 8)


@pytest.mark.parametrize(
    ("words", "keep", "window", "samples"),
    [
        ("stvit", 9, (4, 6), 3),
        ("stvit(ratio=2)", 8, (4, 3), 2),
        ("stvit(samples=1)", 6, (2, 2), 1),
    ],
)
def test_equals_the_loops(
    case, equals, counts, exports, restores, again, words, keep, window, samples
):
    def restated(patches, levels, weights):
        made = _semantic(again, patches, weights, window, samples)
        return again.block(
            made + weights["table"][0], weights, "spread", np.concatenate((made, patches))
        )

    one = case(words, keep)
    equals(one, keep, restated)
    counts(one)
    exports(one, "learned")
    restores(one, "delta")
    assert one.reducer.grid == (4 // window[0] * samples, 6 // window[1] * samples)


def test_recovery_equals_its_formula(case, again):
    one = case("stvit", 8)
    x, y = one.tokens(1), torch.randn(1, 10, 8)
    with torch.no_grad():
        back = one.reducer.restore(y, one.run(x), x, "learned")[0, 2:]
    skip, tokens = (t[0, 2:].numpy().astype(float) for t in (x, y))
    expected = again.block(skip, one.weights(), "recover", tokens)
    np.testing.assert_allclose(back, expected, rtol=1e-4, atol=1e-5)


def test_an_untrained_way_back_is_the_identity_and_learns():
    reducer = build_reducer("stvit", Place(24, 8, 2, grid=(4, 6), dim=8, heads=2))
    x = torch.randn(2, 26, 8)
    reduced = reducer(x, Side())
    back = reducer.restore(reduced.x + 1, reduced, x, "learned")
    assert torch.equal(back[:, 2:], x[:, 2:])
    back.square().sum().backward()
    assert reducer.recover.layer_scale_1.grad.abs().sum() > 0


def test_reports_the_mean_of_each_window(case):
    one = case("stvit", 8)  # two windows of 4x3, 2x2 tokens each: a map of 2x4
    assign = one.run(one.tokens(1)).assign[0].reshape(2, 4, 4, 6)
    for row, column in np.ndindex(2, 4):
        expected = torch.zeros(4, 6)
        expected[:, 3 * (column // 2) : 3 * (column // 2) + 3] = 1 / 12
        torch.testing.assert_close(assign[row, column], expected)


def test_refuses_what_does_not_come_out():
    def build(words, keep):
        return build_reducer(words, Place(24, keep, grid=(4, 6), dim=8, heads=2))

    with pytest.raises(UsageError, match="no such cells make 7"):
        build("stvit", 7)
    with pytest.raises(UsageError, match="makes 9 tokens of each; no such cells make 6"):
        build("stvit(samples=3)", 6)
    line = Place(24, 8, grid=(1, 24), dim=8, heads=2)
    with pytest.raises(UsageError, match="2x2 tokens of windows of 1x12 patches"):
        build_reducer("stvit(samples=2)", line)
    assert build_reducer("stvit", line).samples == 1
    with pytest.raises(UsageError, match="are -1 and 4"):
        build("stvit(samples=-1)", 6)
