"""DualToken-ViT's block against a statement with explicit sums."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from prunus.models.blocks.segmentation.dual_tokens import DualTokenBlock, DualTokenStage
from prunus.runtime.errors import UsageError

DIM, HEADS = 8, 2


def _norm(layer, x):
    mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, correction=0)
    return (x - mean) / torch.sqrt(var + 1e-6) * layer.weight + layer.bias


def _gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def _linear(layer, x):
    return x @ layer.weight.T + layer.bias


def _mlp(layer, x):
    return _linear(layer.fc2, _gelu(_linear(layer.fc1, x)))


def _mha(q, k, v):
    d, out = DIM // HEADS, torch.zeros_like(q)
    for n, head in np.ndindex(len(q), HEADS):
        part = slice(head * d, head * d + d)
        weights = torch.exp(k[:, part] @ q[n, part] / math.sqrt(d))
        out[n, part] = (weights[:, None] * v[:, part]).sum(0) / weights.sum()
    return out


def _depthwise(layer, image, stride=1):
    """Sum taps of a zero-padded map (C, H, W)."""
    k = layer.weight.shape[-1]
    padded = functional.pad(image, (k // 2,) * 4)
    size = [-(-side // stride) for side in image.shape[1:]]
    out = torch.zeros(image.shape[0], *size, dtype=image.dtype) + layer.bias[:, None, None]
    for i, j in np.ndindex(k, k):
        moved = padded[:, i : i + image.shape[1], j : j + image.shape[2]]
        out += layer.weight[:, 0, i, j, None, None] * moved[:, ::stride, ::stride]
    return out


def _literal(block, image, carried):
    dim, rows, columns = image.shape
    tokens = _norm(block.local.norm, _depthwise(block.local.dwconv, image).flatten(1).T)
    x_local = image + _mlp(block.local.mlp, tokens).T.reshape(dim, rows, columns)
    small = x_local
    for conv in block.tokens.down:
        small = _depthwise(conv, small, stride=2)
    g = _norm(block.tokens.norm, small.flatten(1).T)
    q, k, v = (_linear(block.tokens.attn.qkv, g)[:, i * dim : (i + 1) * dim] for i in range(3))
    x_ga = _linear(block.tokens.attn.proj, _mha(q, k, v))
    carried = 0.5 * _mlp(block.tokens.mlp, carried) + 0.5 * x_ga
    x = x_local.flatten(1).T
    k, v = _linear(block.kv, carried)[:, :dim], _linear(block.kv, carried)[:, dim:]
    x = x + _linear(block.proj, _mha(_linear(block.q, _norm(block.norm1, x)), k, v))
    gate, out = block.mlp, _mlp(block.mlp.mlp, _norm(block.norm2, x))
    normed = _norm(gate.norm, out)
    whole = _gelu(_linear(gate.global_reduce, normed.mean(0)))
    here = _gelu(_linear(gate.local_reduce, normed))
    channel = torch.sigmoid(_linear(gate.channel_select, whole))
    for n in range(len(x)):
        place = torch.sigmoid(_linear(gate.spatial_select, torch.cat((here[n], whole))))
        x[n] = x[n] + out[n] * channel * place
    return x.T.reshape(dim, rows, columns), carried


@pytest.mark.parametrize(("grid", "small"), [((8, 12), (2, 3)), ((4, 4), (4, 4))])
def test_block_equals_the_statement(grid, small) -> None:
    torch.manual_seed(4)
    block = DualTokenBlock(DIM, HEADS, 12, grid, small, kernel=5).double().eval()
    image = torch.randn(2, DIM, *grid, dtype=torch.float64)
    carried = torch.randn(2, small[0] * small[1], DIM, dtype=torch.float64)
    with torch.no_grad():
        got = block(image, carried)
        expected = [_literal(block, *pair) for pair in zip(image, carried, strict=True)]
    for part in (0, 1):
        wanted = torch.stack([one[part] for one in expected])
        torch.testing.assert_close(got[part], wanted, rtol=0, atol=1e-12)


def test_carried_tokens_reach_the_map_of_a_later_stage() -> None:
    torch.manual_seed(5)
    stage = DualTokenStage(DIM, 4, HEADS, 12, grid=(4, 4), small=(2, 2), depth=2).eval()
    image, carried = torch.randn(1, DIM, 4, 4), torch.randn(1, 4, 4)
    with torch.no_grad():
        one, two = stage(image, carried)[0], stage(image, carried + 1)[0]
    assert float((one - two).abs().max()) > 1e-4
    with pytest.raises(UsageError, match="no global tokens"):
        stage(image, None)


def test_onnx_runtime_gives_the_same(run_onnx) -> None:
    torch.manual_seed(6)
    stage = DualTokenStage(DIM, 0, HEADS, 12, grid=(8, 8), small=(2, 2), depth=2).eval()

    class Started(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.stage = stage

        def forward(self, image):
            return self.stage(image, None)

    image = torch.randn(2, DIM, 8, 8)
    with torch.no_grad():
        expected = stage(image, None)
    for got, wanted in zip(run_onnx(Started(), image, outputs=2), expected, strict=True):
        np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-5, atol=1e-5)


def test_gradients_reach_every_parameter() -> None:
    stage = DualTokenStage(DIM, 0, HEADS, 12, grid=(4, 4), small=(2, 2), depth=2)
    image, tokens = stage(torch.randn(1, DIM, 4, 4), None)
    (image.square().sum() + tokens.square().sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in stage.parameters())


@pytest.mark.parametrize(("grid", "small"), [((12, 8), (2, 2)), ((6, 6), (4, 4)), ((4, 4), (8, 8))])
def test_maps_that_cannot_be_halved_are_refused(grid, small) -> None:
    with pytest.raises(UsageError, match="cannot be halved"):
        DualTokenBlock(DIM, HEADS, 12, grid, small)
