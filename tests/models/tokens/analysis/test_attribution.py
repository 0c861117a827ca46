import math

import numpy as np
import pytest
import torch

from prunus.models.tokens.analysis.attribution import attributions, contributions, rolled_out
from prunus.models.tokens.analysis.parts import Seen, in_parts
from prunus.models.tokens.blocks.halves import attend
from prunus.models.tokens.reducer import Place
from tests.models.tokens.networks import PlainVit, build, pixels


@pytest.fixture(params=["plain", "dinov2", "siglip"])
def network(request):
    if request.param == "plain":
        torch.manual_seed(0)
        return request.param, PlainVit().eval()
    pytest.importorskip("transformers")
    return request.param, build(request.param)


def _literal(block, layout, tokens, heads):
    """Restate the module's formula for one sample, token by token, in float64."""
    part = layout.part
    normed = part(block, layout.norm1)(tokens)
    pieces = [part(block, path)(normed) for path in layout.qkv]
    q, k, v = pieces if len(pieces) == 3 else pieces[0].chunk(3, dim=-1)
    q, k, v = (p.detach().double().numpy() for p in (q, k, v))
    out = part(block, layout.out).weight.detach().double().numpy()
    x = tokens.double().numpy()
    length, dim = x.shape
    depth = dim // heads
    norms = np.zeros((length, length))
    for i in range(length):
        for j in range(length):
            total = np.zeros(dim)
            for h in range(heads):
                s = slice(h * depth, (h + 1) * depth)
                logits = [q[i, s] @ k[m, s] / math.sqrt(depth) for m in range(length)]
                weight = np.exp(logits[j] - max(logits)) / np.exp(
                    np.array(logits) - max(logits)
                ).sum()
                total += weight * (out[:, s] @ v[j, s])
            if layout.scale1:
                scaled = part(block, layout.scale1)(torch.from_numpy(total).float())
                total = scaled.detach().double().numpy()
            norms[i, j] = np.linalg.norm(total + (x[i] if i == j else 0))
    return norms / norms.sum(axis=1, keepdims=True)


def test_contributions_are_what_the_formula_says(network):
    name, network = network
    x = pixels(name)[:1]
    twin, parts = in_parts(network, [x])
    seen = {}
    with torch.no_grad(), parts.heard(seen.__setitem__):
        twin(x)
    cut = seen[1].tokens[:, :6]  # a short sequence: the restatement is slow
    block, layout = parts.blocks[1], parts.layout
    with torch.no_grad():
        _, attention = attend(block, layout, cut)
        found = contributions(block, layout, Seen(cut, attention, cut))
        wanted = _literal(block, layout, cut[0], int(layout.part(block, layout.heads)))
    np.testing.assert_allclose(found[0].numpy(), wanted, atol=1e-5)
    np.testing.assert_allclose(found.sum(-1).numpy(), 1.0, atol=1e-6)


def test_rollout_is_the_product_of_the_layers():
    layers = list(torch.rand(4, 2, 5, 5, generator=torch.Generator().manual_seed(2)))
    layers = [layer / layer.sum(-1, keepdim=True) for layer in layers]
    classed = rolled_out(layers, Place(4, 4, special=1, class_token=True))
    assert len(classed) == 3
    whole = layers[3] @ layers[2] @ layers[1]
    torch.testing.assert_close(classed[0], whole[:, 0, 1:])
    torch.testing.assert_close(classed[2], layers[3][:, 0, 1:])
    pooled = rolled_out(layers, Place(5, 5))
    torch.testing.assert_close(pooled[1], (layers[3] @ layers[2]).mean(1))
    torch.testing.assert_close(pooled[1].sum(-1), torch.ones(2))


def test_each_patch_of_each_block_but_the_last_has_a_share():
    torch.manual_seed(0)
    x = pixels("plain")
    twin, parts = in_parts(PlainVit().eval(), [x])
    shares, seen = attributions(twin, parts, [x])
    assert len(shares) == len(parts.blocks) - 1 == 2 and len(seen) == 3
    assert all(share.shape == (2, 64) and (share > 0).all() for share in shares)
    assert all((share.sum(1) < 1).all() for share in shares)  # the class token has the rest
