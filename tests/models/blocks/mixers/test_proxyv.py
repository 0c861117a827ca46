"""ProxyV's sandwich against its formulas."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from prunus.models.blocks.mixers.proxyv import ProxySandwich
from prunus.models.macs import count_macs
from prunus.runtime.errors import UsageError

DIM, HEADS, HIDDEN, LIGHT, GRID, CELL = 8, 2, 12, 6, (4, 6), (2, 3)


def _light(again, block, x, told):
    hidden = block.fc1(torch.cat((block.inner(x), told), dim=1))
    x = block.fc2(hidden * torch.sigmoid(hidden)) + x
    return x / (x.square().mean(1, keepdim=True) + 1e-6).sqrt() * block.norm.weight


def _by_cells(again, block, x):
    image = x.T.reshape(1, DIM, *GRID)
    pooled = functional.avg_pool2d(image, CELL)
    p = again.block(block.block, (q := pooled.flatten(2)[0].T), torch.cat((q, x)))
    spread = p.T.reshape(DIM, 2, 2).repeat_interleave(2, 1).repeat_interleave(3, 2)
    return _light(again, block, x, block.context(spread.reshape(DIM, -1).T)), p


def _by_queries(again, block, x):
    logits = block.queries @ block.key(x).T / math.sqrt(DIM)
    p = logits.exp() / logits.exp().sum(1, keepdim=True) @ x
    p = again.block(block.block, p, torch.cat((p, x)))
    splat = (logits.exp() / logits.exp().sum(0, keepdim=True)).T
    return _light(again, block, x, block.context(splat @ p)), p


KINDS = {
    "cells": ({"grid": GRID, "cell": CELL}, _by_cells),
    "queries": ({"queries": 5}, _by_queries),
}


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_formula(again, run_onnx, kind) -> None:
    arguments, restated = KINDS[kind]
    block = again.alive(ProxySandwich(DIM, HEADS, HIDDEN, LIGHT, **arguments))
    x = torch.randn(2, 24, DIM, dtype=torch.float64)
    with torch.no_grad():
        tokens, proxies = block(x)
        for picture in range(2):
            expected = restated(again, block, x[picture])
            torch.testing.assert_close(tokens[picture], expected[0], rtol=0, atol=1e-11)
            torch.testing.assert_close(proxies[picture], expected[1], rtol=0, atol=1e-11)
    got = run_onnx(block.float(), x.float(), outputs=2)
    np.testing.assert_allclose(got[0], tokens.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got[1], proxies.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_parameter(again, kind) -> None:
    block = again.alive(ProxySandwich(DIM, HEADS, HIDDEN, LIGHT, **KINDS[kind][0]))
    tokens, _ = block(torch.randn(1, 24, DIM, dtype=torch.float64))
    (tokens * torch.randn_like(tokens)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())


def test_costs_what_the_formula_says() -> None:
    block = ProxySandwich(DIM, HEADS, HIDDEN, LIGHT, grid=GRID, cell=CELL)
    n, p = 24, 4
    heavy = 2 * p * DIM**2 + 2 * (n + p) * DIM**2 + 2 * p * (n + p) * DIM + 2 * p * DIM * HIDDEN
    light = (n + p) * DIM * LIGHT + 2 * n * LIGHT**2 + n * LIGHT * DIM
    assert count_macs(block, torch.zeros(1, n, DIM)) == heavy + light


def test_refusals() -> None:
    for arguments in ({}, {"grid": GRID}, {"grid": GRID, "cell": CELL, "queries": 2}):
        with pytest.raises(UsageError, match="a grid with cells, or a number of queries"):
            ProxySandwich(DIM, HEADS, HIDDEN, LIGHT, **arguments)
    with pytest.raises(UsageError, match="do not divide a grid"):
        ProxySandwich(DIM, HEADS, HIDDEN, LIGHT, grid=GRID, cell=(3, 3))
