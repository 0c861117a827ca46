"""The formula against published figures, and against what is counted in a pruned network."""

import math

import pytest

from prunus.models.macs import count_macs
from prunus.models.tokens.blocks.layouts import example_input
from prunus.models.tokens.macs import Encoder, plan_macs
from prunus.models.tokens.prune import prune
from prunus.runtime.errors import UsageError

EMBEDDING, HEAD = 196 * 384 * 3 * 16 * 16, 384 * 1000
DEIT_S = Encoder(12, 384, 6, 1536, 196, grid=(14, 14), rest=EMBEDDING + HEAD)


def _evit_plan(share):
    """The counts of EViT's code: the fused token comes on top, and is cut like any other."""
    counts, left = [], 196
    for _ in range(3):
        left = math.ceil(share * left) + 1
        counts.append(left)
    return f"evit:{'/'.join(map(str, counts))}@3/6/9"


@pytest.mark.parametrize(
    ("share", "published"), [(0.9, 4.0), (0.8, 3.5), (0.7, 3.0), (0.6, 2.6), (0.5, 2.3)]
)
def test_published_figures_of_evit_on_deit_s(share, published):
    """EViT, arXiv 2202.07800, table 1, billions to one digit."""
    assert round(plan_macs(DEIT_S, _evit_plan(share)) / 1e9, 1) == published


@pytest.mark.parametrize(
    ("plan", "published"), [("dense", 4.6), ("evit:0.7@3/6/9", 3.0), ("evit:0.5@3/6/9", 2.3)]
)
def test_published_figures_of_deit_s(plan, published):
    assert plan_macs(DEIT_S, plan) / 1e9 == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize(
    "plan",
    [
        "dense",
        "evit:20@1",
        "hiprune:24@1,tome:12@3",
        "tome:24@0",
        "average_pool:12@2",
        "strided:30@0,vtc_cls:16@2",
        "token_transforming:18@3",
        "aim:12@1",
    ],
)
def test_the_formula_is_what_is_counted(plan):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=80,
        image_size=(24, 32),
        patch_size=4,
    )
    network = transformers.ViTModel(config, add_pooling_layer=False).eval()
    rest = 48 * 32 * 3 * 4 * 4
    encoder = Encoder(4, 32, 4, 80, 48, grid=(6, 8), rest=rest)
    pruned = prune(network, plan)
    assert plan_macs(encoder, plan) == count_macs(pruned, example_input(network))


def test_what_cannot_be():
    with pytest.raises(UsageError, match="cuts at block 12"):
        plan_macs(DEIT_S, "evit:0.5@12")
    with pytest.raises(UsageError, match="keeps 197"):
        plan_macs(DEIT_S, "evit:197@3")
    with pytest.raises(UsageError, match="0 blocks"):
        Encoder(0, 384, 6, 1536, 196)
