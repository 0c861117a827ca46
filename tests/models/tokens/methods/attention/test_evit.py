"""EViT against its definition, one picture and one patch at a time."""

import numpy as np
import torch

from prunus.models.tokens.registry import build_reducer


def test_keeps_what_the_class_token_looks_at_and_fuses_the_rest(bench):
    place = bench.place(keep=10)
    x, side = bench.inputs(place)
    reduced = build_reducer("evit", place)(x, side)
    for picture, paid in enumerate(bench.probability(side)[:, :, 0, 2:].mean(axis=1)):
        kept = sorted(np.argsort(-paid)[:9])
        assert reduced.kept[picture].tolist() == kept
        rest = [patch for patch in range(48) if patch not in kept]
        # The rest is weighted by raw attention, which does not sum to 1.
        fused = sum(paid[patch] * x[picture, 2 + patch].numpy() for patch in rest)
        np.testing.assert_allclose(reduced.x[picture, -1], fused, atol=1e-6)
        assert torch.equal(reduced.x[picture, 2:-1], x[picture, 2:][kept])


def test_merges_into_the_nearest_kept_patch(bench):
    place = bench.place(keep=10)
    x, side = bench.inputs(place)
    kept = build_reducer("evit(merge=drop)", place)(x, side).kept
    reduced = build_reducer("evit(merge=nearest)", place)(x, side)
    for picture in range(2):
        unit = bench.unit(x[picture, 2:])
        groups = {int(k): [x[picture, 2 + int(k)].numpy()] for k in kept[picture]}
        for patch in range(48):
            if patch not in groups:
                nearest = max(groups, key=lambda k: unit[k] @ unit[patch])
                groups[nearest].append(x[picture, 2 + patch].numpy())
        means = [np.mean(group, axis=0) for group in groups.values()]
        np.testing.assert_allclose(reduced.x[picture, 2:], means, atol=1e-5)
        assert reduced.size[picture].tolist() == [len(group) for group in groups.values()]
