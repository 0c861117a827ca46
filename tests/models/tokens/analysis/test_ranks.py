import numpy as np
import pytest
import torch

from prunus.models.tokens.analysis.parts import in_parts
from prunus.models.tokens.analysis.ranks import CLASS_SCORES, SCORES, rank_table, spearman
from tests.models.tokens.networks import PlainVit, build, pixels


def test_spearman_is_pearson_of_ranks_and_knows_ties():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 3, 20))
    other[:, 5:9] = 0.25
    other = np.round(other, 1)

    def ranks(values):
        """Return places counted from 1; equal values share the mean of theirs."""
        order = sorted(values)
        places = {v: [k + 1 for k, w in enumerate(order) if w == v] for v in order}
        return [np.mean(places[v]) for v in values]

    wanted = [np.corrcoef(ranks(a), ranks(b))[0, 1] for a, b in zip(one, other, strict=True)]
    found = spearman(torch.from_numpy(one), torch.from_numpy(other))
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-6)


def test_opposite_orders_and_constants():
    rising = torch.arange(6.0)[None]
    assert float(spearman(rising, -(rising**3))) == pytest.approx(-1)
    assert float(spearman(rising, torch.ones(1, 6))) == 0


def test_every_score_is_graded_at_every_block_but_the_last():
    torch.manual_seed(0)
    network = PlainVit().eval()
    x = pixels("plain")
    twin, parts = in_parts(network, [x])
    table = rank_table(twin, parts, [[x], [x + 0.1]])
    assert set(table) == {*CLASS_SCORES, *SCORES}
    for row in table.values():
        assert len(row) == 2
        assert all(-1 <= mean <= 1 and 0 <= off <= 1 for mean, off in row)


def test_without_a_class_token_its_scores_are_left_out():
    pytest.importorskip("transformers")
    x = pixels("siglip")
    twin, parts = in_parts(build("siglip"), [x])
    assert set(rank_table(twin, parts, [[x]])) == set(SCORES)
