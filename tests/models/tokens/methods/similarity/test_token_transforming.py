"""Token Transforming against loops, and both ends of its temperature."""

import numpy as np
import pytest
import torch

from prunus.models.tokens.registry import build_reducer


@pytest.mark.parametrize("class_token", [True, False])
def test_masses_spread_over_seeds(class_token, bench):
    place = bench.place(keep=9, class_token=class_token)
    x, side = bench.inputs(place)
    reduced = build_reducer("token_transforming(tau=0.2)", place)(x, side)
    for picture in range(2):
        seen = bench.probability(side)[picture].mean(axis=0)
        score = seen[0, 2:] if class_token else seen.mean(axis=0)[2:]
        seeds = sorted(np.argsort(-score)[:9])
        unit = bench.unit(x[picture, 2:])
        share = np.zeros((9, 48))
        for patch in range(48):
            weight = np.exp([unit[seed] @ unit[patch] / 0.2 for seed in seeds])
            share[:, patch] = weight / weight.sum()
        mass = share.sum(axis=1)
        np.testing.assert_allclose(reduced.size[picture], mass, rtol=1e-5)
        rows = share / mass[:, None]
        np.testing.assert_allclose(reduced.x[picture, 2:], rows @ x[picture, 2:].numpy(), atol=1e-5)


def test_towards_zero_each_patch_joins_its_nearest_seed(bench):
    place = bench.place(keep=9)
    x, side = bench.inputs(place)
    cold = build_reducer("token_transforming(tau=1e-7)", place)(x, side)
    hard = build_reducer("token_transforming(merge=nearest)", place)(x, side)
    torch.testing.assert_close(cold.assign, hard.assign, rtol=0, atol=1e-6)
    torch.testing.assert_close(cold.x, hard.x, rtol=0, atol=1e-5)


def test_towards_infinity_every_token_is_the_mean(bench):
    place = bench.place(keep=9)
    x, side = bench.inputs(place)
    hot = build_reducer("token_transforming(tau=1e7)", place)(x, side)
    mean = x[:, 2:].mean(dim=1, keepdim=True).expand(-1, 9, -1)
    torch.testing.assert_close(hot.x[:, 2:], mean, rtol=0, atol=1e-5)
