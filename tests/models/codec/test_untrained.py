"""Untrained weights are the same for the same seed, whatever was drawn before."""

import pytest
import torch

from prunus.models.checkpoints import codecs
from prunus.models.codec.untrained import initialise


@pytest.mark.parametrize(
    ("model", "variant"),
    [("wavtokenizer", "tok75"), ("fusecodec", "16k"), ("freecodec", "16k")],
)
def test_a_seed_decides_every_number(model, variant, small_codecs):
    states = []
    for before in (1, 2):
        torch.manual_seed(before)
        network = codecs.build_codec(model, variant)
        expected = torch.get_rng_state()
        initialise(network, 5)
        assert torch.equal(torch.get_rng_state(), expected)
        states.append(network.state_dict())
    different = [n for n in states[0] if not torch.equal(states[0][n], states[1][n])]
    assert [n for n in different if not n.endswith("embed_avg")] == []
