"""VQToken's k-means against a loop over clusters."""

import numpy as np
import pytest
import torch

from prunus.models.tokens.registry import build_reducer


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_constant_steps_of_k_means(steps, bench):
    place = bench.place(keep=7)
    x, side = bench.inputs(place)
    reduced = build_reducer(f"vqtoken(steps={steps})", place)(x, side)
    for picture in range(2):
        tokens, unit = x[picture, 2:].numpy(), bench.unit(x[picture, 2:])
        centres = unit[[int((k + 0.5) * 48 / 7) for k in range(7)]]
        for _ in range(steps):
            label = [int(np.argmax([c @ u for c in centres])) for u in unit]
            sums = [
                sum((u for u, own in zip(unit, label, strict=True) if own == k)) for k in range(7)
            ]
            assert all(np.ndim(total) for total in sums)  # no cluster is empty here
            centres = bench.unit(sums)
        label = [int(np.argmax([c @ u for c in centres])) for u in unit]
        for k in range(7):
            group = [t for t, own in zip(tokens, label, strict=True) if own == k]
            np.testing.assert_allclose(reduced.x[picture, 2 + k], np.mean(group, axis=0), atol=1e-5)
            assert reduced.size[picture, k] == len(group)


def test_an_empty_cluster_shares_its_nearest_token(bench):
    """All tokens are one of two kinds; the third centre is a copy and gets none."""
    place = bench.place(tokens=6, keep=3, grid=None)
    x, side = bench.inputs(place, 1)
    x[:, 2:4], x[:, 4:] = x[:, 2:3].clone(), x[:, 6:7].clone()
    reduced = build_reducer("vqtoken", place)(x, side)
    # Centres 1, 3, 5 hold kinds a, b, b: the last shares one of the four b tokens.
    torch.testing.assert_close(reduced.x[0, 2:], x[0, [2, 6, 6]])
    assert reduced.size.tolist() == [[2.0, 3.5, 0.5]]
    torch.testing.assert_close(reduced.assign.sum(dim=2), torch.ones(1, 3))
