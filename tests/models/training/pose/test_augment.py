import itertools
from dataclasses import replace

import numpy as np
import pytest

from prunus.models.training.pose.augment import (
    FLIP_PAIRS,
    NONE,
    AugmentConfig,
    augment,
    flip_joints,
    udp_matrix,
)

WILD = AugmentConfig(30.0, 0.3, 0.1, 0.0, 0.5, 0.0, 0.0, 0.0)


def _dots(rng):
    """A black picture with one white 5x5 dot per joint, far enough apart to be told apart."""
    image = np.zeros((320, 288, 3), np.uint8)
    cells = rng.permutation(42)[:17]
    points = np.stack([30 + 38 * (cells % 6), 30 + 36 * (cells // 6)], 1).astype(np.float32)
    for x, y in points.astype(int):
        image[y - 2 : y + 3, x - 2 : x + 3] = 255
    joints = np.concatenate([points, np.ones((17, 1), np.float32)], 1)
    return image, joints, np.array([20, 20, 260, 290], np.float32)


@pytest.mark.parametrize("seed", range(8))
def test_joints_follow_their_pixels(seed):
    rng = np.random.default_rng(seed)
    image, joints, box = _dots(rng)
    crop, moved = augment(image, joints, box, (256, 192), config=WILD, rng=rng)
    checked = 0
    for x, y, weight in moved:
        if weight == 0 or not (6 < x < 185 and 6 < y < 249):
            continue
        rows, cols = slice(int(y) - 6, int(y) + 8), slice(int(x) - 6, int(x) + 8)
        light = crop[rows, cols, 0].astype(float)
        ys, xs = np.mgrid[rows, cols]
        centre = np.array([(xs * light).sum(), (ys * light).sum()]) / light.sum()
        np.testing.assert_allclose(centre, [x, y], atol=0.35)
        checked += 1
    assert checked >= 6


def test_flipping_swaps_left_and_right_and_is_its_own_inverse():
    rng = np.random.default_rng(0)
    joints = rng.uniform(0, 190, (17, 3)).astype(np.float32)
    flipped = flip_joints(joints, 192)
    for left, right in FLIP_PAIRS:
        assert flipped[left, 0] == pytest.approx(191 - joints[right, 0], abs=1e-4)
        assert flipped[left, 1] == joints[right, 1]
    np.testing.assert_allclose(flip_joints(flipped, 192), joints, atol=1e-4)


def test_the_unbiased_matrix_maps_box_corners_to_outer_pixel_centres():
    matrix = udp_matrix(np.array([100.0, 80.0]), np.array([60.0, 80.0]), 0.0, (256, 192))
    corners = np.array([[70.0, 40.0, 1.0], [130.0, 120.0, 1.0]])
    np.testing.assert_allclose(corners @ matrix.T, [[0, 0], [191, 255]], atol=1e-9)


def test_joints_outside_the_crop_lose_their_weight():
    rng = np.random.default_rng(1)
    image, joints, _ = _dots(rng)
    box = np.array([100, 100, 130, 140], np.float32)
    _, moved = augment(image, joints, box, (256, 192), config=NONE, rng=rng)
    outside = (moved[:, 0] < 0) | (moved[:, 0] > 191) | (moved[:, 1] < 0) | (moved[:, 1] > 255)
    assert outside.any()
    np.testing.assert_array_equal(moved[:, 2], np.where(outside, 0, 1))


def test_a_black_band_takes_the_joints_under_it_along():
    rng = np.random.default_rng(2)
    image, joints, box = _dots(rng)
    band = AugmentConfig(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, border=1.0)
    crop, moved = augment(np.full_like(image, 200), joints, box, (256, 192), config=band, rng=rng)
    x, y = np.rint(moved[:, 0]).astype(int), np.rint(moved[:, 1]).astype(int)
    dark = crop[np.clip(y, 0, 255), np.clip(x, 0, 191), 0] < 100
    assert 0 < dark.sum() < 17
    np.testing.assert_array_equal(moved[:, 2] == 0, dark)


def test_the_same_seed_gives_the_same_sample():
    image, joints, box = _dots(np.random.default_rng(3))
    runs = [
        augment(image, joints, box, (128, 96), config=AugmentConfig(), rng=np.random.default_rng(9))
        for _ in range(2)
    ]
    np.testing.assert_array_equal(runs[0][0], runs[1][0])
    np.testing.assert_array_equal(runs[0][1], runs[1][1])


def test_channels_change_their_order_and_nothing_else():
    image, joints, box = _dots(np.random.default_rng(4))
    image[..., 2] //= 2
    orders = set()
    for seed in range(40):
        plain, _ = augment(
            image, joints, box, (128, 96), config=NONE, rng=np.random.default_rng(seed)
        )
        other, moved = augment(
            image,
            joints,
            box,
            (128, 96),
            config=replace(NONE, channels=1.0),
            rng=np.random.default_rng(seed),
        )
        found = [
            order
            for order in itertools.permutations(range(3))
            if np.array_equal(other, plain[..., list(order)])
        ]
        assert found
        orders.update(found[:1])
        np.testing.assert_array_equal(moved[:, 2], 1)
    assert len(orders) > 2
