"""Networks that ship, by the names that commands know."""

import pytest
import torch

from prunus.export.foreign.options import ModuleOptions
from prunus.models.pose.levels import evitpose_plan
from prunus.models.pose.shipped import shipped_input, shipped_names, shipped_network
from prunus.models.tokens.prune import prune
from prunus.models.user_network import build_network
from prunus.models.zoo import load_checkpoint
from prunus.runtime.errors import UsageError


def test_the_weights_are_those_that_ship():
    assert shipped_names() == ("evitpose_tiny", "evitpose_dino6")
    for name in shipped_names():
        network = build_network(name)
        own, state = network.state_dict(), load_checkpoint(f"{name}_coco17")
        assert own.keys() == state.keys() and not network.training
        assert all(torch.equal(own[key], state[key].float()) for key in own)


@torch.no_grad()
def test_level_one_as_a_plan_is_the_level_to_the_bit():
    network = shipped_network("evitpose_dino6")
    levels = network.with_plan(evitpose_plan("L1", 17, network.config.depth))
    crops = torch.randn(1, 3, 256, 192, generator=torch.Generator().manual_seed(0))
    plan = levels.config.plan
    counts, places = ("/".join(map(str, v)) for v in (plan.keep, plan.blocks))
    assert torch.equal(prune(network, f"joint:{counts}@{places}")(crops), levels(crops))


def test_they_tell_their_input_unless_one_is_given():
    assert shipped_input("evitpose_tiny") == "pixels:1x3x256x192"
    assert ModuleOptions("evitpose_tiny").inputs == ("pixels:1x3x256x192",)
    assert ModuleOptions("evitpose_tiny", input=("x:2x3x256x192",)).inputs == ("x:2x3x256x192",)
    assert ModuleOptions("nets.py:build").inputs == ()
    with pytest.raises(UsageError, match=r"Got 'evitpose_tny'; expected") as caught:
        build_network("evitpose_tny")
    assert "evitpose_tiny, evitpose_dino6" in caught.value.hint
