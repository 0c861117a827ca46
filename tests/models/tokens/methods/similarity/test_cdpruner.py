"""CDPruner against determinants: the greedy set has the largest one at every step."""

import numpy as np
import pytest

from prunus.models.tokens.registry import build_reducer


@pytest.mark.parametrize(("words", "alpha"), [
    ("cdpruner", None), ("cdpruner(theta=0.5)", 0.5), ("cdpruner(theta=0.1)", 0.1 / 1.8),
])  # fmt: skip
@pytest.mark.parametrize("class_token", [True, False])
def test_greedy_determinants(words, alpha, class_token, bench):
    place = bench.place(keep=8, class_token=class_token)
    x, side = bench.inputs(place)
    for picture, kept in enumerate(build_reducer(words, place)(x, side).kept):
        seen = bench.probability(side)[picture].mean(axis=0)
        score = seen[0, 2:] if class_token else seen.mean(axis=0)[2:]
        relevance = (score - score.min() + 1e-6) / (score.max() - score.min() + 1e-6)
        if alpha is not None:
            relevance = np.exp(alpha * relevance)
        unit = bench.unit(x[picture, 2:])
        kernel = relevance[:, None] * (unit @ unit.T) * relevance
        chosen = []
        while len(chosen) < 8:
            rest = [patch for patch in range(48) if patch not in chosen]
            chosen.append(
                max(rest, key=lambda p: np.linalg.det(kernel[np.ix_([*chosen, p], [*chosen, p])]))
            )
        assert kept.tolist() == sorted(chosen)


def test_more_tokens_than_directions(bench):
    """Beyond the rank of the kernel nothing is left to be gained; the count holds all the same."""
    place = bench.place(keep=30)  # 16 channels
    x, side = bench.inputs(place)
    kept = build_reducer("cdpruner", place)(x, side).kept
    assert kept.shape == (2, 30) and (kept.diff(dim=1) > 0).all()
