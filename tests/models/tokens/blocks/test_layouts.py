"""Our own networks tell where their blocks are: pruned by plans, equal to their own cuts."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from prunus.models.codec.freecodec.freecodec import FreeCodecConfig, FreeDecoder
from prunus.models.pose.deployed import DeployedPose
from prunus.models.pose.evitpose import EViTPose, EViTPoseConfig
from prunus.models.tokens.blocks.layouts import example_input, find_layout
from prunus.models.tokens.blocks.stack import pruned_blocks, reductions
from prunus.models.tokens.plan import DENSE, read_plan
from prunus.models.tokens.prune import prune, uncut
from prunus.runtime.errors import UsageError


def _pose(plan=DENSE, **more):
    torch.manual_seed(0)
    config = EViTPoseConfig("toy", 32, 2, plan, "subpixel", depth=4, **more)
    network = EViTPose(config)
    for value in network.parameters():  # fresh ones attend to nothing in particular
        nn.init.normal_(value, std=0.2)
    return network.eval()


def _crops(count=2):
    return torch.randn(count, 3, 256, 192, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "words",
    ["joint(combine=sum):120/60@1/2", "joint(combine=max):0.5@0", "strided:96/48@1/3",
     "average_pool(counted=false):48@2", "top(by=received):100@3"],
)  # fmt: skip
@torch.no_grad()
def test_own_cuts_as_a_plan_are_equal_to_the_bit(words):
    network, crops = _pose(), _crops()
    own = network.with_plan(read_plan(words, 192))
    pruned = prune(network, words)
    assert type(pruned) is EViTPose
    assert torch.equal(pruned(crops), own(crops))
    assert torch.equal(pruned(crops[:1]), own(crops[:1]))
    assert not torch.allclose(pruned(crops), network(crops))


@torch.no_grad()
def test_without_a_cut_nothing_changes():
    network, crops = _pose(), _crops()
    for twin in (prune(network, "dense"), uncut(network)):
        assert torch.equal(twin(crops), network(crops))


# From block 0 on all run in halves, and nobody gives what stands beside the tokens.
@pytest.mark.parametrize("words", ["tome:96@2", "tome:100@0"])
@torch.no_grad()
def test_merges_too(words):
    network, crops = _pose(), _crops()
    pruned = prune(network, words)
    with reductions(pruned) as seen:
        maps = pruned(crops)
    assert maps.shape == network(crops).shape and torch.isfinite(maps).all()
    (done,) = seen.values()
    assert done.x.shape[1] == 17 + pruned_blocks(pruned).plan.keep[0]


def test_what_is_pruned_already_is_refused():
    cut = _pose(read_plan("joint:96@1", 192))
    with pytest.raises(UsageError, match=r"pruned already, by its own plan 'joint:96@1'"):
        prune(cut, "tome:96@2")
    pruned = prune(_pose(), "tome:96@1")
    for network in (pruned, DeployedPose(pruned)):
        with pytest.raises(UsageError, match="pruned already, by the plan 'tome:96@1'"):
            prune(network, "tome:48@2", example=_crops(1))
    with pytest.raises(UsageError, match="blocks of this EViTPose are pruned"):
        pruned.with_plan(DENSE)


@torch.no_grad()
def test_a_network_around_it_is_pruned_through_it():
    deployed = DeployedPose(_pose()).eval()
    layout = find_layout(deployed, None)
    assert layout.blocks == "network.blocks" and layout.special == 17
    assert example_input(deployed) is None and example_input(_pose()).shape == (1, 3, 256, 192)
    image = torch.randint(0, 256, (1, 256, 192, 3), dtype=torch.uint8)
    pruned = prune(deployed, "joint:96@1", example=image)
    own = DeployedPose(deployed.network.with_plan(read_plan("joint:96@1", 192)))
    assert torch.equal(pruned(image), own(image))


def _decoder(length=16):
    torch.manual_seed(0)
    config = FreeCodecConfig(width=32, heads=4, blocks=1)
    config = replace(config, content=replace(config.content, dim=16))
    decoder = FreeDecoder(config).eval()
    return decoder, (torch.randn(1, length, 16), torch.randn(1, length // 8, 16),
                     torch.randn(1, 192))  # fmt: skip


@torch.no_grad()
def test_the_decoder_of_freecodec():
    decoder, codes = _decoder()
    sound = decoder(*codes)
    assert torch.equal(uncut(decoder, codes)(*codes), sound)
    for words in ("strided:8@1", "tome:0.75@0", "mergedna:8@2"):
        pruned = prune(decoder, words, example=codes)
        assert pruned_blocks(pruned).entry.grid == (1, 16)
        made = pruned(*codes)
        assert made.shape == sound.shape and not torch.equal(made, sound)
    everything = prune(decoder, "strided:16@1", example=codes)
    torch.testing.assert_close(everything(*codes), sound)
    with pytest.raises(UsageError, match="Give an example"):
        prune(decoder, "strided:8@1")
