"""Formulas that the restatements of mixers are made of, in float64."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional


def _attend(q, k, v, heads, bias=None):
    """Attention of queries (N, C) over keys (M, C), head by head and query by query."""
    d, out = q.shape[1] // heads, torch.zeros_like(q)
    for head in range(heads):
        part = slice(head * d, head * d + d)
        for i in range(len(q)):
            scores = k[:, part] @ q[i, part] / math.sqrt(d)
            scores = scores if bias is None else scores + bias[i]
            out[i, part] = (scores.exp() / scores.exp().sum()) @ v[:, part]
    return out


def _norm(layer, x):
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()
    return x * layer.weight + layer.bias


def _mha(layer, queries, keys, bias=None):
    """An `Attention` on normed tokens."""
    k, v = layer.kv(keys).chunk(2, dim=1)
    return layer.proj(_attend(layer.q(queries), k, v, layer.heads, bias))


def _mlp(layer, x):
    return layer.fc2(functional.gelu(layer.fc1(x)))


def _block(block, x, keys=None):
    seen = _norm(block.norm1, x if keys is None else keys)
    y = x + block.layer_scale_1 * _mha(block.attn, _norm(block.norm1, x), seen)
    return y + block.layer_scale_2 * _mlp(block.mlp, _norm(block.norm2, y))


def _alive(module):
    """Random weights without symmetry, in float64."""
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.4)
    return module.eval().double()


@pytest.fixture
def again():
    return SimpleNamespace(
        attend=_attend, norm=_norm, mha=_mha, mlp=_mlp, block=_block, alive=_alive
    )
