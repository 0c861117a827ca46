"""ToMe against the pairs of its paper, one edge at a time."""

import numpy as np
import pytest
import torch

from prunus.models.tokens.reducer import Side
from prunus.models.tokens.registry import build_reducer


def merge(tokens, sizes, metric, count):
    """Return (means, sizes): the `count` best edges from even to odd tokens are merged."""
    even, odd = range(0, len(tokens), 2), range(1, len(tokens), 2)
    edges = []
    for a in even:
        b = max(odd, key=lambda b: metric[a] @ metric[b])
        edges.append((metric[a] @ metric[b], a, b))
    gone = {a: b for _, a, b in sorted(edges, reverse=True)[:count]}
    means, masses = [], []
    for token in [*(a for a in even if a not in gone), *odd]:
        group = [token, *(a for a, b in gone.items() if b == token)]
        masses.append(sum(sizes[g] for g in group))
        means.append(sum(sizes[g] * tokens[g] for g in group) / masses[-1])
    return np.array(means), np.array(masses)


@pytest.mark.parametrize(("tokens", "keep"), [(48, 30), (48, 24), (47, 24), (48, 47)])
def test_pairs_by_keys_and_means_by_size(tokens, keep, bench):
    place = bench.place(tokens=tokens, keep=keep, grid=None)
    x, side = bench.inputs(place)
    sizes = torch.randint(1, 5, (2, 2 + tokens)).float()
    reduced = build_reducer("tome", place)(x, Side(side.attention, size=sizes))
    for picture in range(2):
        metric = bench.unit(side.attention[4].key[picture, :, 2:].mean(dim=0))
        patches, own = x[picture, 2:].numpy(), sizes[picture, 2:].numpy()
        means, masses = merge(patches, own, metric, tokens - keep)
        np.testing.assert_allclose(reduced.x[picture, 2:], means, atol=1e-5)
        np.testing.assert_allclose(reduced.size[picture], masses)
