"""RelayFormer's stage against fold, count and explicit rotary positions."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional

from prunus.models.blocks.segmentation.deployed import deploy
from prunus.models.blocks.segmentation.relay import (
    LoraLinear,
    RelayStage,
    Tiling,
    relay_positions,
    tile_starts,
    turn,
)
from prunus.runtime.errors import UsageError

DIM, RELAYS = 40, 3  # one head of 40: 32 dimensions turn, 8 stay


def _alive(module):
    torch.manual_seed(9)
    with torch.no_grad():
        for name, value in module.named_parameters():
            if name.endswith(("_a", "_b")):
                value.normal_(std=0.2)
            elif name == "table":
                value.normal_()
    return module.double().eval()


def _linear(layer, x, path):
    """Base and low-rank branch apart, as they are trained: W x + 16 / 8 * B^T A^T x."""
    a, b = layer.get_parameter(f"{path}_a"), layer.get_parameter(f"{path}_b")
    return layer.base(x) + (x @ a @ b) * 2.0


def _turned(x, places):
    """Rotary positions of one token list (L, d), dimension by dimension."""
    out = x.clone()
    for n, place in enumerate(places):
        for group, coordinate in enumerate(place):
            for i in range(8):
                angle = coordinate * 10000 ** (-(i // 2) / 4)  # pairs share a frequency
                start = 8 * group
                partner = -x[n, start + i + 4] if i < 4 else x[n, start + i - 4]  # halves swap
                out[n, start + i] = x[n, start + i] * math.cos(angle) + partner * math.sin(angle)
    return out


def _block(block, x, path, places=None):
    norm = lambda layer, v: functional.layer_norm(v, (DIM,), layer.weight, layer.bias, 1e-6)  # noqa: E731
    q, k, v = _linear(block.qkv, norm(block.norm1, x), path).chunk(3, dim=1)
    if places is not None:
        q, k = _turned(q, places), _turned(k, places)
    weights = (q @ k.T / math.sqrt(DIM)).exp()
    x = x + _linear(block.proj, weights / weights.sum(1, keepdim=True) @ v, path)
    hidden = functional.gelu(_linear(block.fc1, norm(block.norm2, x), path))
    return x + _linear(block.fc2, hidden, path)


def _literal(stage, image, side, stride):
    """Two tiles per side as in the published code: unfold, fold, divide by the count."""
    grid = image.shape[1:]
    corners = [(y, x) for y in (0, stride) for x in (0, stride)]
    places = [(0, t, y, x) for y in (0, 1) for x in (0, 1) for t in range(RELAYS)]

    def cut(one):
        return [one[:, y : y + side, x : x + side].flatten(1).T for y, x in corners]

    tiles, relays = cut(image), [stage.table[0]] * 4
    for k, block in enumerate(stage.blocks):
        out = [_block(block, torch.cat(p), "local") for p in zip(relays, tiles, strict=True)]
        columns = torch.stack([o[RELAYS:].T.reshape(-1) for o in out], dim=1)[None]
        folded = functional.fold(columns, grid, side, stride=stride)
        count = functional.fold(torch.ones_like(columns), grid, side, stride=stride)
        image = (folded / count)[0]
        tiles = cut(image)
        if k + 1 < len(stage.blocks):
            told = torch.cat([o[:RELAYS] for o in out])
            relays = list(_block(stage.blocks[k + 1], told, "global", places).split(RELAYS))
    return image


def test_stage_equals_folding_and_rotary_loops() -> None:
    torch.manual_seed(0)  # the same values every time: float32 angles round relative to them
    stage = _alive(RelayStage(DIM, 1, 48, grid=(10, 10), tiles=(2, 2), depth=3))
    image = torch.randn(1, DIM, 10, 10, dtype=torch.float64)
    with torch.no_grad():
        got = stage(image)
        expected = _literal(stage, image[0], side=6, stride=4)
    torch.testing.assert_close(got[0], expected, rtol=0, atol=1e-6)  # angles are float32
    assert float((got - image).abs().max()) > 0.1


def test_pictures_of_a_batch_do_not_mix() -> None:
    stage = _alive(RelayStage(DIM, 1, 48, grid=(6, 10), tiles=(1, 2), depth=2))
    image = torch.randn(2, DIM, 6, 10, dtype=torch.float64)
    with torch.no_grad():
        together, apart = stage(image), torch.cat([stage(image[:1]), stage(image[1:])])
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-12)


def test_relays_tell_tiles_about_each_other() -> None:
    stage = _alive(RelayStage(DIM, 1, 48, grid=(8, 8), tiles=(2, 2), depth=2, overlap=0))
    image = torch.randn(1, DIM, 8, 8, dtype=torch.float64, requires_grad=True)
    seen = torch.autograd.grad(stage(image)[0, :, 0, 0].sum(), image)[0].abs().sum(1)[0]
    assert float(seen[7, 7]) > 0  # another tile, reached through the relays only
    alone = _alive(RelayStage(DIM, 1, 48, grid=(8, 8), tiles=(2, 2), depth=1, overlap=0))
    seen = torch.autograd.grad(alone(image)[0, :, 0, 0].sum(), image)[0].abs().sum(1)[0]
    assert float(seen[4:, 4:].sum()) == 0.0


@pytest.mark.parametrize(("length", "tiles", "overlap"), [(64, 2, 2), (128, 8, 2), (33, 4, 3)])
def test_tiles_cover_the_axis(length, tiles, overlap) -> None:
    side, starts = tile_starts(length, tiles, overlap)
    assert starts[0] == 0 and starts[-1] + side == length
    assert all(b - a <= side - overlap for a, b in pairwise(starts))
    if (length, tiles) == (64, 2):
        assert (side, starts) == (33, [0, 31])  # the published tiles


@pytest.mark.parametrize(("grid", "tiles", "overlap"), [((12, 9), (3, 2), 1), ((7, 7), (1, 1), 2)])
def test_stitching_is_the_mean_over_tiles(grid, tiles, overlap) -> None:
    tiling = Tiling(grid, tiles, overlap)
    parts = torch.randn(1, tiling.count, tiling.length, 2, dtype=torch.float64)
    total, count = torch.zeros(grid[0] * grid[1], 2, dtype=torch.float64), torch.zeros(99999)
    for k, position in enumerate(tiling.cut_index.tolist()):
        total[position] += parts.reshape(-1, 2)[k]
        count[position] += 1
    expected = total / count[: len(total), None]
    torch.testing.assert_close(tiling.stitch(parts)[0], expected, rtol=0, atol=1e-12)
    whole = torch.randn(1, grid[0] * grid[1], 2)
    torch.testing.assert_close(tiling.stitch(tiling.cut(whole)), whole)


def test_positions_at_the_origin_turn_nothing() -> None:
    x = torch.randn(1, 1, 1, 40)
    assert torch.equal(turn(x, relay_positions((1, 1), 1)), x)


def test_low_rank_parts_serve_their_purpose_alone() -> None:
    layer = LoraLinear(6, 5, ("local", "global"))
    x = torch.randn(2, 6)
    torch.testing.assert_close(layer(x, "local"), layer.base(x))  # new: B is zero
    with torch.no_grad():
        layer.get_parameter("global_b").normal_()
    torch.testing.assert_close(layer(x, "local"), layer.base(x))
    assert float((layer(x, "global") - layer.base(x)).detach().abs().max()) > 1e-3


def test_onnx_runtime_gives_the_same(run_onnx) -> None:
    stage = _alive(RelayStage(64, 2, 96, grid=(8, 8), tiles=(2, 2), depth=2)).float()
    image = torch.randn(2, 64, 8, 8)
    with torch.no_grad():
        expected = stage(image).numpy()
    stage = deploy(stage)  # low-rank parts merged
    np.testing.assert_allclose(run_onnx(stage, image)[0], expected, rtol=1e-5, atol=2e-5)


def test_gradients_reach_every_parameter() -> None:
    stage = _alive(RelayStage(DIM, 1, 48, grid=(6, 6), tiles=(2, 2), depth=2))
    stage(torch.randn(1, DIM, 6, 6, dtype=torch.float64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in stage.parameters())


def test_heads_and_tiles_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="rotary positions need 32"):
        RelayStage(48, 3, 48, grid=(8, 8), tiles=(2, 2), depth=1)
    with pytest.raises(UsageError, match="do not fit on 8 positions"):
        RelayStage(DIM, 1, 48, grid=(8, 8), tiles=(4, 4), depth=1, overlap=4)
