import math

import numpy as np
import pytest
import torch

from prunus.models.pose.decode import udp_dark_decode


def _reference(heatmap):
    """Decode one map literally: blur all of it, log, pad, differences, inverse; in float64."""
    height, width = heatmap.shape
    taps = np.array([math.exp(-((i - 5) ** 2) / 8.0) for i in range(11)])
    kernel = np.outer(taps, taps) / taps.sum() ** 2
    padded = np.pad(heatmap.astype(np.float64), 5, mode="reflect")
    blurred = np.empty((height, width))
    for y in range(height):
        for x in range(width):
            blurred[y, x] = (padded[y : y + 11, x : x + 11] * kernel).sum()
    logs = np.pad(np.log(np.clip(blurred, 1e-3, 50)), 1, mode="edge")
    best = int(heatmap.argmax())
    y, x = best // width, best % width
    c = logs[y : y + 3, x : x + 3]
    gradient = np.array([0.5 * (c[1, 2] - c[1, 0]), 0.5 * (c[2, 1] - c[0, 1])])
    dxx, dyy = c[1, 2] - 2 * c[1, 1] + c[1, 0], c[2, 1] - 2 * c[1, 1] + c[0, 1]
    dxy = 0.5 * (c[2, 2] - c[1, 2] - c[2, 1] + 2 * c[1, 1] - c[1, 0] - c[0, 1] + c[0, 0])
    hessian = np.array([[dxx, dxy], [dxy, dyy]]) + np.finfo(np.float32).eps * np.eye(2)
    step = np.linalg.inv(hessian) @ gradient
    return np.array([x - step[0], y - step[1], heatmap.max()])


def _gaussian(x, y, size=(64, 48), sigma=2.0):
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))


def _decode(maps):
    return udp_dark_decode(torch.tensor(np.stack(maps), dtype=torch.float32)[None])[0].numpy()


def test_matches_blurring_the_whole_map():
    rng = np.random.default_rng(0)
    maps = []
    for _ in range(20):
        x, y = rng.uniform(3, 44), rng.uniform(3, 60)
        maps.append((_gaussian(x, y) + rng.uniform(0, 0.02, (64, 48))).astype(np.float32))
    got = _decode(maps)
    np.testing.assert_allclose(got, [_reference(m) for m in maps], rtol=0, atol=2e-4)


@pytest.mark.parametrize("x", [0.0, 0.4, 1.0, 24.0, 46.0, 46.6, 47.0])
@pytest.mark.parametrize("y", [0.0, 0.4, 1.0, 30.0, 62.0, 62.6, 63.0])
def test_matches_at_the_borders_and_corners(x, y):
    heatmap = _gaussian(x, y).astype(np.float32)
    expected = np.clip(_reference(heatmap), [0, 0, 0], [47, 63, 1])
    np.testing.assert_allclose(_decode([heatmap])[0], expected, rtol=0, atol=2e-4)


def test_sub_pixel_error_is_small():
    """Where no blur window (6 px) meets the reflected border, a Gaussian is found exactly.

    Nearer to it the method itself is biased (0.08 px at 4 px), for the literal reference as well.
    """
    rng = np.random.default_rng(1)
    places = rng.uniform([8, 8], [39, 55], (200, 2))
    got = _decode([_gaussian(x, y) for x, y in places])
    assert np.abs(got[:, :2] - places).max() < 1e-3
    near = np.array([4.2, 30.0])
    biased = _reference(_gaussian(*near).astype(np.float32))
    assert 0.01 < abs(biased[0] - near[0]) < 0.1
    np.testing.assert_array_less(got[:, 2], 1.0 + 1e-6)


def test_argmax_is_taken_before_the_blur():
    """A lone spike wins over a broad hill that would win after the blur."""
    heatmap = 0.8 * _gaussian(10, 50, sigma=4.0)
    heatmap[20, 30] = 0.9
    x, y, score = _decode([heatmap])[0]
    assert abs(x - 30) < 2 and abs(y - 20) < 2
    assert score == np.float32(0.9)


@pytest.mark.parametrize("value", [0.0, -3.0, 0.5, 1e30])
def test_flat_maps_give_the_origin(value):
    got = _decode([np.full((64, 48), value)])[0]
    assert got.tolist() == [0.0, 0.0, np.float32(value)]


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e6])
@pytest.mark.parametrize("shift", [-10.0, 0.0])
def test_always_finite_and_inside(scale, shift):
    rng = np.random.default_rng(2)
    maps = rng.normal(size=(50, 64, 48)) * scale + shift
    got = _decode(maps)
    assert np.isfinite(got).all()
    assert (got[:, 0] >= 0).all() and (got[:, 0] <= 47).all()
    assert (got[:, 1] >= 0).all() and (got[:, 1] <= 63).all()


def test_half_precision_maps_decode_in_float32():
    rng = np.random.default_rng(3)
    places = rng.uniform([4, 4], [43, 59], (50, 2))
    maps = torch.tensor(np.stack([_gaussian(x, y) for x, y in places]))[None]
    half, full = udp_dark_decode(maps.half()), udp_dark_decode(maps.float())
    assert half.dtype == torch.float32
    assert (half - full)[..., :2].abs().max() < 5e-3


def test_batches_and_other_sizes():
    heatmap = torch.tensor(_gaussian(7.3, 5.6, (12, 16)))[None, None].expand(3, 4, -1, -1)
    got = udp_dark_decode(heatmap)
    assert got.shape == (3, 4, 3)
    torch.testing.assert_close(
        got[..., :2], torch.tensor([7.3, 5.6]).expand(3, 4, 2), rtol=0, atol=0.05
    )
