"""Qihoo-T2X's block against loops over windows."""

import numpy as np
import pytest
import torch

from prunus.models.blocks.mixers.proxy_tokens import ProxyTokenBlock
from prunus.models.macs import count_macs
from prunus.runtime.errors import UsageError

DIM, HEADS, HIDDEN, GRID, WINDOW = 8, 2, 12, (4, 8), (4, 4)


def _windows(shift):
    """Yield positions of each window of the rolled grid, and the part that each comes from."""
    for top in range(0, GRID[0], WINDOW[0]):
        for left in range(0, GRID[1], WINDOW[1]):
            at = [
                ((top + i + shift) % GRID[0], (left + j + shift) % GRID[1])
                for i in range(WINDOW[0])
                for j in range(WINDOW[1])
            ]
            yield [y * GRID[1] + x for y, x in at], [(y < shift, x < shift) for y, x in at]


def _near(again, layer, normed, shift):
    out = torch.zeros_like(normed)
    for own, part in _windows(shift):
        bias = torch.tensor([[-1.0 * (a != b) for b in part] for a in part])
        out[own] = again.mha(layer, normed[own], normed[own], bias.double())
    return out


def _restated(again, block, x, proxies):
    image = x.reshape(*GRID, DIM)
    rows = []
    for left in (0, 4):
        window = image[:, left : left + 4]
        for row in (0, 1):
            for column in (0, 1):
                every = window[row::2, column::2].reshape(-1, DIM)
                rows.append(every.mean(0) if proxies == "mean" else window[row, column])
    p, n = torch.stack(rows), block.norms
    p = p + again.mha(block.among, again.norm(n[0], p), again.norm(n[0], p))
    x = x + again.mha(block.listen, again.norm(n[1], x), again.norm(n[2], p))
    x = x + _near(again, block.near, again.norm(n[3], x), 0)
    x = x + _near(again, block.shifted, again.norm(n[4], x), 2)
    return x + again.mlp(block.mlp, again.norm(n[5], x))


@pytest.mark.parametrize("proxies", ["mean", "first"])
def test_equals_the_loops(again, proxies) -> None:
    block = again.alive(ProxyTokenBlock(DIM, HEADS, HIDDEN, GRID, WINDOW, proxies=proxies))
    x = torch.randn(2, 32, DIM, dtype=torch.float64)
    with torch.no_grad():
        expected = torch.stack([_restated(again, block, one, proxies) for one in x])
        torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-11)


def test_an_untrained_block_hears_neither_proxies_nor_shifted_windows() -> None:
    torch.manual_seed(0)
    block = ProxyTokenBlock(DIM, HEADS, HIDDEN, GRID, WINDOW).double()
    x = torch.randn(1, 32, DIM, dtype=torch.float64, requires_grad=True)
    seen = torch.autograd.grad(block(x)[0, 0].sum(), x)[0][0].abs().sum(1) > 0
    assert seen.nonzero().flatten().tolist() == [8 * y + c for y in range(4) for c in range(4)]


def test_costs_what_the_formula_says() -> None:
    block = ProxyTokenBlock(DIM, HEADS, HIDDEN, GRID, WINDOW)
    n, p, length = 32, 8, 16
    among = 4 * p * DIM**2 + 2 * p * p * DIM
    listen = 2 * (n + p) * DIM**2 + 2 * n * p * DIM
    near = 2 * (4 * n * DIM**2 + 2 * n * length * DIM)
    expected = among + listen + near + 2 * n * DIM * HIDDEN
    assert count_macs(block, torch.zeros(1, n, DIM)) == expected


def test_onnx_runtime_gives_the_same(again, run_onnx) -> None:
    block = again.alive(ProxyTokenBlock(DIM, HEADS, HIDDEN, GRID, WINDOW)).float()
    x = torch.randn(2, 32, DIM)
    with torch.no_grad():
        expected = block(x).numpy()
    np.testing.assert_allclose(run_onnx(block, x)[0], expected, rtol=1e-4, atol=1e-5)


def test_gradients_reach_every_parameter(again) -> None:
    block = again.alive(ProxyTokenBlock(DIM, HEADS, HIDDEN, GRID, WINDOW))
    block(torch.randn(1, 32, DIM, dtype=torch.float64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())


def test_refusals() -> None:
    with pytest.raises(UsageError, match="expected even sides"):
        ProxyTokenBlock(DIM, HEADS, HIDDEN, (3, 6), (3, 2))
    with pytest.raises(UsageError, match="do not divide a grid"):
        ProxyTokenBlock(DIM, HEADS, HIDDEN, (4, 6), (4, 4))
    with pytest.raises(UsageError, match="Unknown proxies 'random'"):
        ProxyTokenBlock(DIM, HEADS, HIDDEN, GRID, WINDOW, proxies="random")
