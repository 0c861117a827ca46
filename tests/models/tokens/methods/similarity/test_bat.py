"""BAT against loops: pairs of the attentive, density peaks of the others."""

import numpy as np
import pytest

from prunus.models.tokens.registry import build_reducer


def _clusters(tokens, count, neighbours):
    distance = np.array([[np.linalg.norm(a - b) for b in tokens] for a in tokens])
    distance /= np.sqrt(tokens.shape[1])
    rho = [np.exp(-np.mean(np.sort(row)[:neighbours] ** 2)) for row in distance]
    delta = []
    for i in range(len(tokens)):
        denser = [distance[i, j] for j in range(len(tokens)) if rho[j] > rho[i]]
        delta.append(min(denser) if denser else distance.max())
    centres = sorted(np.argsort(-np.array(rho) * delta)[:count])
    return [
        centres.index(i) if i in centres else int(np.argmin([distance[i, c] for c in centres]))
        for i in range(len(tokens))
    ]


def _pairs(tokens, count, bench):
    """Return a label for each token: those that stay of the even ones, then the odd ones."""
    unit = bench.unit(tokens)
    even, odd = range(0, len(tokens), 2), range(1, len(tokens), 2)
    best = {a: max(odd, key=lambda b: unit[a] @ unit[b]) for a in even}
    gone = sorted(even, key=lambda a: -(unit[a] @ unit[best[a]]))[:count]
    order = [a for a in even if a not in gone] + list(odd)
    return [order.index(best[t] if t in gone else t) for t in range(len(tokens))]


@pytest.mark.parametrize(("words", "keep", "clusters", "pairs"), [
    ("bat", 30, 6, 4),
    ("bat(clusters=0.5,pairs=0.5,neighbours=3)", 20, 10, 10),
    ("bat(pairs=0)", 12, 2, 0),
    ("bat(clusters=1)", 5, 4, 1),
])  # fmt: skip
def test_pairs_and_clusters(words, keep, clusters, pairs, bench):
    place = bench.place(keep=keep)
    x, side = bench.inputs(place)
    reducer = build_reducer(words, place)
    assert (reducer.clusters, reducer.pairs) == (clusters, pairs)
    reduced = reducer(x, side)
    for picture in range(2):
        tokens = x[picture, 2:].numpy().astype(np.float64)
        paid = bench.probability(side)[picture, :, 0, 2:].mean(axis=0)
        attentive = sorted(np.argsort(-paid)[: keep - clusters + pairs])
        rest = [patch for patch in range(48) if patch not in attentive]
        expected = []
        labels = _pairs(tokens[attentive], pairs, bench)
        for group in range(keep - clusters):
            members = [attentive[k] for k, label in enumerate(labels) if label == group]
            expected.append(tokens[members].mean(axis=0))
        labels = _clusters(tokens[rest], clusters, min(reducer.neighbours, len(rest)))
        for group in range(clusters):
            members = [rest[k] for k, label in enumerate(labels) if label == group]
            weights = paid[members] / paid[members].sum()
            expected.append(weights @ tokens[members])
        np.testing.assert_allclose(reduced.x[picture, 2:], expected, atol=1e-5)
