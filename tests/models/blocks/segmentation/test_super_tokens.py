"""Super-token attention against loops over pixels and neighbours."""

import math

import numpy as np
import pytest
import torch

from prunus.models.blocks.segmentation.super_tokens import SuperTokenAttention, SuperTokenBlock
from prunus.runtime.errors import UsageError


def _attention(state, tokens, heads):
    """Plain attention; qkv holds q, k and v of head 0, then of head 1, and so on."""
    count, dim = tokens.shape
    each = tokens @ state["qkv.weight"][:, :, 0, 0].T + state["qkv.bias"]
    d, out = dim // heads, np.zeros((count, dim))
    for head in range(heads):
        q, k, v = (each[:, 3 * d * head + d * part :][:, :d] for part in range(3))
        for i in range(count):
            weights = [math.exp(q[i] @ k[j] / math.sqrt(d)) for j in range(count)]
            out[i, d * head : d * head + d] = sum(
                w / sum(weights) * v[j] for j, w in enumerate(weights)
            )
    return out @ state["proj.weight"][:, :, 0, 0].T + state["proj.bias"]


def _literal(state, image, heads, cell):
    """Follow section 3.2 of the paper on one map (H, W, C)."""
    rows, columns, dim = image.shape[0] // cell, image.shape[1] // cell, image.shape[2]
    first = np.zeros((rows, columns, dim))
    for y, x in np.ndindex(rows, columns):
        first[y, x] = image[y * cell : (y + 1) * cell, x * cell : (x + 1) * cell].mean((0, 1))

    def around(tokens, y, x):
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                inside = 0 <= y + dy < rows and 0 <= x + dx < columns
                yield (y + dy, x + dx), tokens[y + dy, x + dx] if inside else np.zeros(dim)

    member = {}
    total, mass = np.zeros((rows, columns, dim)), np.zeros((rows, columns))
    for py, px in np.ndindex(image.shape[:2]):
        near = list(around(first, py // cell, px // cell))
        raw = [math.exp(image[py, px] @ token * dim**-0.5) for _, token in near]
        member[py, px] = [value / sum(raw) for value in raw]
        for (place, _), share in zip(near, member[py, px], strict=True):
            if 0 <= place[0] < rows and 0 <= place[1] < columns:
                total[place] += share * image[py, px]
                mass[place] += share
    tokens = total / (mass[..., None] + 1e-12)
    spread = _attention(state, tokens.reshape(-1, dim), heads).reshape(rows, columns, dim)
    out = np.zeros_like(image)
    for py, px in np.ndindex(image.shape[:2]):
        near = around(spread, py // cell, px // cell)
        out[py, px] = sum(s * t for s, (_, t) in zip(member[py, px], near, strict=True))
    return out


@pytest.mark.parametrize(
    ("grid", "cell"), [((6, 9), 3), ((4, 4), 2), ((4, 2), 4 // 2), ((3, 4), 1)]
)
def test_attention_equals_the_loops(grid, cell) -> None:
    torch.manual_seed(2)
    attention = SuperTokenAttention(8, 2, grid, cell).eval()
    image = torch.randn(2, *grid, 8)
    state = {key: value.double().numpy() for key, value in attention.state_dict().items()}
    with torch.no_grad():
        got = attention(image)
    if cell == 1:
        expected = [_attention(state, m.double().numpy().reshape(-1, 8), 2) for m in image]
        expected = [m.reshape(*grid, 8) for m in expected]
    else:
        expected = [_literal(state, one.double().numpy(), 2, cell) for one in image]
    np.testing.assert_allclose(got.numpy(), np.stack(expected), rtol=0, atol=1e-6)
    assert got.std() > 0.05


def test_neighbours_outside_the_map_take_part_of_the_softmax() -> None:
    attention = SuperTokenAttention(4, 1, (2, 2), 2).eval()
    with torch.no_grad():
        attention.qkv.weight.zero_()
        attention.qkv.bias.zero_()
        attention.qkv.bias[8:] = 1.0  # values
        attention.proj.weight.copy_(torch.eye(4)[:, :, None, None])
        attention.proj.bias.zero_()
        # One super token, pixels of zero: nine equal shares of which one is inside.
        got = attention(torch.zeros(1, 2, 2, 4))
    torch.testing.assert_close(got, torch.full_like(got, 1 / 9))


def test_onnx_runtime_gives_the_same(run_onnx) -> None:
    torch.manual_seed(3)
    block = SuperTokenBlock(16, 2, 32, (8, 12), 4).eval()
    block.norm2.running_mean.normal_()
    image = torch.randn(2, 16, 8, 12)
    with torch.no_grad():
        expected = block(image).numpy()
    np.testing.assert_allclose(run_onnx(block, image)[0], expected, rtol=1e-5, atol=1e-5)


def test_gradients_reach_every_parameter() -> None:
    block = SuperTokenBlock(16, 2, 32, (8, 8), 4)
    block(torch.randn(2, 16, 8, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())


def test_cells_and_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(UsageError, match="as a cell side for a map side of 10"):
        SuperTokenAttention(8, 2, (8, 10), 4)
    with pytest.raises(UsageError, match="as heads"):
        SuperTokenAttention(8, 3, (8, 8), 4)
