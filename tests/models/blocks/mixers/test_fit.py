"""FIT's stage against loops over groups."""

import numpy as np
import pytest
import torch

from prunus.models.blocks.mixers.fit import FitStage
from prunus.models.layers.local_global.index import (
    chunks,
    grid_windows,
    overlapping_windows,
    shifted_windows,
)
from prunus.models.macs import count_macs
from prunus.runtime.errors import UsageError

DIM, WIDE, HEADS, LATENTS = 8, 12, 2, 2
GRID = grid_windows((4, 6), (2, 3))


def _exchange(again, layer, queries, keys):
    seen = again.norm(layer.norm_seen, keys)
    return queries + again.mha(layer.attn, again.norm(layer.norm, queries), seen)


def _restated(again, stage, x, groups):
    latents, count = stage.table[0].clone(), len(stage.among)
    own = [slice(k * LATENTS, (k + 1) * LATENTS) for k in range(len(groups))]
    for cycle in range(count + 1):
        for layer in stage.local[cycle]:
            after = x.clone()
            for group in groups:
                after[group] = again.block(layer, x[group])
            x = after
        if cycle == count:
            return x, latents
        read, write = stage.read[cycle], stage.write[cycle]
        latents = torch.cat(
            [_exchange(again, read, latents[o], x[g]) for o, g in zip(own, groups, strict=True)]
        )
        for layer in stage.among[cycle]:
            latents = again.block(layer, latents)
        after = x.clone()
        for o, group in zip(own, groups, strict=True):
            after[group] = _exchange(again, write, x[group], latents[o])
        x = after
    raise AssertionError


@pytest.mark.parametrize("layers", ["(1)2(0)", "(1)1(1)1(0)", "(2)"])
@pytest.mark.parametrize("groups", [GRID, chunks(24, 4)])
def test_equals_the_loops(again, layers, groups) -> None:
    stage = again.alive(FitStage(DIM, WIDE, HEADS, groups, LATENTS, layers=layers, ratio=1))
    x = torch.randn(2, 24, DIM, dtype=torch.float64)
    with torch.no_grad():
        tokens, latents = stage(x)
        for picture in range(2):
            expected = _restated(again, stage, x[picture], groups.q_index.tolist())
            torch.testing.assert_close(tokens[picture], expected[0], rtol=0, atol=1e-11)
            torch.testing.assert_close(latents[picture], expected[1], rtol=0, atol=1e-11)


def test_costs_what_the_formula_says(again) -> None:
    stage = FitStage(DIM, WIDE, HEADS, GRID, LATENTS, layers="(1)1(0)", ratio=4)
    n, group, m = 24, 6, 4 * LATENTS
    local = 12 * n * DIM**2 + 2 * n * group * DIM
    among = 12 * m * WIDE**2 + 2 * m * m * WIDE
    read = 2 * m * WIDE**2 + 2 * n * DIM * WIDE + 2 * m * group * WIDE
    write = 2 * n * DIM**2 + 2 * m * WIDE * DIM + 2 * n * LATENTS * DIM
    assert count_macs(stage, torch.zeros(1, n, DIM)) == local + among + read + write


def test_onnx_runtime_gives_the_same(again, run_onnx) -> None:
    stage = again.alive(FitStage(DIM, WIDE, HEADS, GRID, LATENTS, layers="(1)1(1)", ratio=1))
    stage, x = stage.float(), torch.randn(2, 24, DIM)
    with torch.no_grad():
        expected = stage(x)
    for got, wanted in zip(run_onnx(stage, x, outputs=2), expected, strict=True):
        np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_gradients_reach_every_parameter(again) -> None:
    stage = again.alive(FitStage(DIM, WIDE, HEADS, GRID, LATENTS, layers="(1)1(1)", ratio=1))
    tokens, _ = stage(torch.randn(1, 24, DIM, dtype=torch.float64))
    tokens.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in stage.parameters())


def test_refusals() -> None:
    for layers in ("", "2", "(2)4", "(2)(4)", "(2)x(2)"):
        with pytest.raises(UsageError, match="Cannot read the layers"):
            FitStage(DIM, WIDE, HEADS, GRID, LATENTS, layers=layers)
    masked = shifted_windows((4, 6), (2, 3), (1, 1))
    for groups in (overlapping_windows((4, 6), (2, 3), (4, 4)), masked):
        with pytest.raises(UsageError, match="read their own tokens"):
            FitStage(DIM, WIDE, HEADS, groups, LATENTS)
    with pytest.raises(UsageError, match="0 latents"):
        FitStage(DIM, WIDE, HEADS, GRID, 0)
    with pytest.raises(UsageError, match="3 heads"):
        FitStage(DIM, WIDE, 3, GRID, LATENTS)
