"""STViT-R's stage against loops over windows, with unfolding and adaptive pooling as published."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from prunus.models.blocks.segmentation.semantic_tokens import (
    SemanticBlock,
    SemanticStage,
    SwinBlock,
    SwinStage,
)
from prunus.runtime.errors import UsageError

HEADS, DIM = 2, 8


def _alive(module):
    torch.manual_seed(8)
    with torch.no_grad():
        for name, value in module.named_parameters():
            if "layer_scale" in name:
                value.uniform_(0.3, 0.6)
            elif name.endswith("table"):
                value.normal_()
    return module.eval().double()


def _mha(q, k, v, bias=0.0):
    """Attention of tokens (N, C) over keys (M, C), head by head."""
    d, out = DIM // HEADS, torch.zeros_like(q)
    for head in range(HEADS):
        part = slice(head * d, head * d + d)
        scores = q[:, part] @ k[:, part].T / math.sqrt(d)
        scores = scores + (bias if isinstance(bias, float) else bias[head])
        out[:, part] = scores.exp() / scores.exp().sum(1, keepdim=True) @ v[:, part]
    return out


def _norm(layer, x):
    return functional.layer_norm(x, (DIM,), layer.weight, layer.bias, 1e-6)


def _mlp(layer, x):
    return layer.fc2(functional.gelu(layer.fc1(x)))


def _token_block(block, x, keys=None, groups=None):
    """y = x + g1 * MHA(LN x, LN keys); y + g2 * MLP(LN y)."""
    groups = groups or [range(len(x))]
    normed = _norm(block.norm1, x)
    seen = normed if keys is None else _norm(block.norm1, keys)
    mixed = torch.zeros_like(x)
    for group in groups:
        own = seen[list(group)] if keys is None else seen
        k, v = block.attn.kv(own).chunk(2, dim=1)
        mixed[list(group)] = _mha(block.attn.q(normed[list(group)]), k, v)
    y = x + block.layer_scale_1 * block.attn.proj(mixed)
    return y + block.layer_scale_2 * _mlp(block.mlp, _norm(block.norm2, y))


def _windows(grid, side):
    return [
        [(y + i) * grid[1] + x + j for i in range(side) for j in range(side)]
        for y in range(0, grid[0], side)
        for x in range(0, grid[1], side)
    ]


def _swin(block, x, grid, side):
    out = torch.zeros_like(x)
    q, k, v = block.qkv(_norm(block.norm1, x)).chunk(3, dim=1)
    bias = torch.zeros(HEADS, side * side, side * side, dtype=x.dtype)
    for a, b in np.ndindex(side * side, side * side):
        row, column = a // side - b // side + side - 1, a % side - b % side + side - 1
        bias[:, a, b] = block.bias.table[row * (2 * side - 1) + column]
    for window in _windows(grid, side):
        out[window] = _mha(q[window], k[window], v[window], bias)
    x = x + block.proj(out)
    return x + _mlp(block.mlp, _norm(block.norm2, x))


def _semantic(block, x, grid, side, *, shortcut):
    """Pool with PyTorch's adaptive pooling; patches begin one before the window, kept inside."""
    image = x.T.reshape(DIM, *grid)
    coarse = (grid[0] // side * 3, grid[1] // side * 3)
    made = torch.zeros(coarse[0] * coarse[1], DIM, dtype=x.dtype)
    reach = [min(side + 3, g) for g in grid]
    for row, column in np.ndindex(grid[0] // side, grid[1] // side):
        top, left = row * side, column * side
        window = image[:, top : top + side, left : left + side]
        own = functional.adaptive_max_pool2d(window[None], 3)[0].flatten(1).T
        up = min(max(top - 1, 0), grid[0] - reach[0])
        back = min(max(left - 1, 0), grid[1] - reach[1])
        patch = image[:, up : up + reach[0], back : back + reach[1]].flatten(1).T
        inner = block.block
        keys = _norm(inner.norm1, torch.cat((own, patch)))
        k, v = inner.attn.kv(keys).chunk(2, dim=1)
        out = inner.layer_scale_1 * inner.attn.proj(_mha(inner.attn.q(keys[:9]), k, v))
        out = out + own if shortcut else out
        out = out + inner.layer_scale_2 * _mlp(inner.mlp, _norm(inner.norm2, out))
        for i, j in np.ndindex(3, 3):
            made[(row * 3 + i) * coarse[1] + column * 3 + j] = out[3 * i + j]
    return made


@pytest.mark.parametrize(("grid", "side"), [((14, 14), 7), ((8, 16), 8), ((4, 8), 4)])
@pytest.mark.parametrize("shortcut", [False, True])
def test_semantic_block_equals_the_loops(grid, side, shortcut) -> None:
    block = _alive(SemanticBlock(DIM, HEADS, 12, grid, side, shortcut=shortcut))
    x = torch.randn(2, grid[0] * grid[1], DIM, dtype=torch.float64)
    with torch.no_grad():
        got = block(x)
        expected = torch.stack([_semantic(block, one, grid, side, shortcut=shortcut) for one in x])
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_patches_are_those_of_the_published_unfolding() -> None:
    """At 14x14 with windows of 7: unfold(kernel 10, stride 4) starts at 0 and 4."""
    block = SemanticBlock(DIM, HEADS, 12, (14, 14), 7)
    positions = torch.arange(196.0).reshape(1, 1, 14, 14)
    patches = functional.unfold(positions, 10, stride=4)[0].T.long()
    assert torch.equal(block.index.kv_index, patches)


def test_stage_equals_its_six_steps() -> None:
    grid, side = (7, 14), 7
    stage = _alive(SemanticStage(DIM, HEADS, 12, grid, side, rounds=2))
    image = torch.randn(1, DIM, *grid, dtype=torch.float64)
    with torch.no_grad():
        got = stage(image)
        x = image[0].flatten(1).T
        for k in range(2):
            swin, semantic, spread, local, among, recover = stage.blocks[6 * k : 6 * k + 6]
            x = _swin(swin, x, grid, side)
            s = _semantic(semantic, x, grid, side, shortcut=False)
            asked = s + stage.semantic_token2[0] if k == 0 else s
            s = _token_block(spread, asked, torch.cat((s, x)))
            s = _token_block(local, s, groups=_windows((3, 6), 3))
            s = _token_block(among, s)
            x = _token_block(recover, x, s)
    torch.testing.assert_close(got[0].flatten(1).T, x, rtol=0, atol=1e-12)
    assert float((got - image).abs().max()) > 0.1


def test_shifted_windows_mix_what_plain_ones_keep_apart() -> None:
    x = torch.randn(1, 64, DIM, dtype=torch.float64, requires_grad=True)
    block = _alive(SwinBlock(DIM, HEADS, 12, (8, 8), 4, shift=2))
    seen = torch.autograd.grad(block(x)[0, 2 * 8 + 2].sum(), x)[0][0].abs().sum(1) > 0
    assert set(seen.nonzero().flatten().tolist()) == {
        y * 8 + z for y in range(2, 6) for z in range(2, 6)
    }
    # The wrapped corner sees its own part alone.
    corner = torch.autograd.grad(block(x)[0, 0].sum(), x)[0][0].abs().sum(1) > 0
    assert set(corner.nonzero().flatten().tolist()) == {0, 1, 8, 9}


def test_onnx_runtime_gives_the_same(run_onnx) -> None:
    stage = torch.nn.Sequential(
        _alive(SwinStage(DIM, HEADS, 12, (8, 8), 4, depth=2)),
        _alive(SemanticStage(DIM, HEADS, 12, (8, 8), 4, rounds=1, shortcut=True)),
    ).float()
    image = torch.randn(2, DIM, 8, 8)
    with torch.no_grad():
        expected = stage(image).numpy()
    np.testing.assert_allclose(run_onnx(stage, image)[0], expected, rtol=1e-5, atol=1e-5)


def test_gradients_reach_every_parameter() -> None:
    stage = _alive(SemanticStage(DIM, HEADS, 12, (8, 8), 4, rounds=1))
    stage(torch.randn(1, DIM, 8, 8, dtype=torch.float64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in stage.parameters())


def test_windows_that_do_not_divide_are_refused() -> None:
    with pytest.raises(UsageError, match="as a window side for a map side of 10"):
        SemanticStage(DIM, HEADS, 12, (14, 10), 7, rounds=1)
