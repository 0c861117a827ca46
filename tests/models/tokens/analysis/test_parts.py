import pytest
import torch

from prunus.models.tokens.analysis.parts import in_parts
from prunus.runtime.errors import UsageError
from tests.models.tokens.networks import FAMILIES, PlainVit, build, pixels


def _network(name):
    if name == "plain":
        torch.manual_seed(0)
        return PlainVit().eval()
    pytest.importorskip("transformers")
    return build(name)


def _last(out):
    return out if isinstance(out, torch.Tensor) else out.last_hidden_state


@pytest.mark.parametrize("name", ["plain", *FAMILIES])
def test_a_network_in_parts_is_the_same_network(name):
    network, x = _network(name), pixels(name)
    twin, parts = in_parts(network, [x])
    seen = {}
    with torch.no_grad(), parts.heard(seen.__setitem__):
        torch.testing.assert_close(_last(twin(x)), _last(network(x)), atol=1e-4, rtol=1e-4)
    assert sorted(seen) == list(range(len(parts.blocks)))
    for number in range(1, len(seen)):
        assert torch.equal(seen[number].tokens, seen[number - 1].out)


@pytest.mark.parametrize("name", ["plain", "siglip"])
def test_patches_that_may_not_meet_know_nothing_of_each_other(name):
    network, x = _network(name), pixels(name)
    twin, parts = in_parts(network, [x])
    other = x.clone()
    other[..., :8, :8] += 1.0  # the first patch
    special = parts.entry.special

    def moved(blocks):
        with torch.no_grad(), parts.without(blocks):
            return (_last(twin(x)) - _last(twin(other))).abs().amax(dim=(0, 2)) > 1e-6

    everywhere = moved(range(len(parts.blocks)))
    assert everywhere.nonzero().flatten().tolist() == [special]
    assert moved([]).all()
    with torch.no_grad():
        assert torch.equal(_last(twin(x)), _last(twin(x)))
        assert not parts.cut_off


def test_blocks_that_are_not_a_sum_of_their_parts_are_refused():
    network = _network("plain")
    block = network.blocks[1]
    own = block.forward
    block.forward = lambda x, *more: 1.1 * own(x, *more)
    with pytest.raises(UsageError, match=r"in parts gives other outputs"):
        in_parts(network, [pixels("plain")])
