"""The learned selector: its logits, its reconstructor, and that its own loss teaches it."""

import numpy as np
import pytest
import torch

from prunus.models.tokens.reducer import Place, Side
from prunus.models.tokens.registry import build_reducer
from prunus.runtime.errors import UsageError


def _logits(again, patches, weights, layers=1):
    for layer in range(layers):
        patches = again.block(patches, weights, f"selector.{layer}")
    return again.linear(
        again.norm(patches, weights, f"selector.{layers}"), weights, f"selector.{layers + 1}"
    )[:, 0]


@pytest.mark.parametrize("layers", [0, 1])
def test_keeps_the_highest_logits(case, equals, counts, exports, restores, again, layers):
    def restated(patches, levels, weights):
        order = np.argsort(-_logits(again, patches, weights, layers))
        return patches[np.sort(order[:7])]

    one = case(f"wle(layers={layers})", 7)
    equals(one, 7, restated)
    counts(one)
    exports(one, "learned")
    restores(one, "delta")


def test_the_way_back_equals_its_formula(case, again):
    one = case("wle", 7)
    x, y = one.tokens(1), torch.randn(1, 9, 8)
    with torch.no_grad():
        reduced = one.run(x)
        back = one.reducer.restore(y, reduced, x, "learned")[0, 2:]
    weights, kept = one.weights(), reduced.kept[0].numpy()
    tokens, written = y[0, 2:].numpy().astype(float), x[0, 2:].numpy().astype(float)
    written[kept] = tokens
    filled = np.tile(weights["reconstructor.blank"], (24, 1))
    filled[kept] = tokens
    hidden = again.block(filled + weights["reconstructor.table"], weights, "reconstructor.layers.0")
    hidden = again.norm(hidden, weights, "reconstructor.head.0")
    rebuilt = again.linear(hidden, weights, "reconstructor.head.1")
    expected = written + weights["gate"] * (rebuilt - written)
    np.testing.assert_allclose(back, expected, rtol=1e-4, atol=1e-5)


def _place(keep=7):
    return Place(24, keep, 2, grid=(4, 6), dim=8, heads=2)


def test_an_untrained_way_back_writes_the_kept_patches():
    reducer = build_reducer("wle", _place())
    x = torch.randn(2, 26, 8)
    reduced = reducer(x, Side())
    y = reduced.x + 1
    assert torch.equal(reducer.restore(reduced.x, reduced, x, "learned"), x)
    back = reducer.restore(y, reduced, x, "learned")
    assert torch.equal(back, reducer.restore(y, reduced, x, "scatter"))


def test_the_loss_equals_its_formula(case):
    """With one patch far above the rest and noise of one seed: a literal masked sum."""
    one = case("wle(layers=0)", 7)
    x = one.tokens(3)
    torch.manual_seed(1)
    with torch.no_grad():
        loss = one.reducer.own_loss(x)
        features = x[:, 2:]
        logits = one.reducer.selector(features)
        torch.manual_seed(1)
        noise = -torch.empty(3, 24, 2).exponential_().log()
        mask = (logits[..., 0] + noise[..., 0] > noise[..., 1]).float()
        error = 0.0
        blank = one.reducer.reconstructor.blank
        for picture in range(3):
            filled = torch.stack(
                [features[picture, n] if mask[picture, n] else blank for n in range(24)]
            )
            rebuilt = one.reducer.reconstructor(filled[None])[0]
            error += float((rebuilt - features[picture]).square().sum())
    expected = error / (3 * 24 * 8) + max(float(mask.mean()), 7 / 24)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_its_own_loss_finds_the_patches_that_cannot_be_rebuilt():
    """Patches 0..3 are noise, the others constant: only the noise is worth keeping."""
    torch.manual_seed(0)
    reducer = build_reducer("wle(layers=0)", _place(keep=4))
    optimiser = torch.optim.Adam(reducer.parameters(), lr=0.02)

    def draw():
        x = torch.ones(16, 26, 8) * torch.linspace(-1, 1, 8)
        x[:, 2:6] = 3 * torch.randn(16, 4, 8)
        return x

    for _ in range(150):
        optimiser.zero_grad()
        reducer.own_loss(draw()).backward()
        optimiser.step()
    assert reducer(draw(), Side()).kept.tolist() == [[0, 1, 2, 3]] * 16


def test_refuses_what_logits_cannot_do():
    for words in ("wle(layers=-1)", "wle(floor=1)"):
        with pytest.raises(UsageError, match="Method 'wle' got"):
            build_reducer(words, _place())
    with pytest.raises(UsageError, match="'wle' at block 0 ranks by values that are no"):
        build_reducer("wle(merge=fuse)", _place())
    reducer = build_reducer("wle(merge=nearest)", _place())
    x = torch.randn(1, 26, 8)
    reduced = reducer(x, Side())
    with pytest.raises(UsageError, match="writes kept patches"):
        reducer.restore(reduced.x, reduced, x, "learned")
