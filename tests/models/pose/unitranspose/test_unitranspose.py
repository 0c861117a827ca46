"""UniTransPose: size, equality of fast and usual form, heads, subsets, gradients, refusals."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from prunus.models.macs import count_macs, count_parameters
from prunus.models.pose.skeleton import SUBSETS, UNIFIED23, read_out
from prunus.models.pose.unitranspose.naive import NaiveUniTransPose
from prunus.models.pose.unitranspose.unitranspose import (
    STRIDES,
    VARIANTS,
    UniTransPose,
    UniTransPoseConfig,
    unitranspose_config,
)
from prunus.runtime.errors import UsageError

# Millions of parameters; 1e9 multiply-accumulates with 17 and with 23 joints, both heads.
TABLE = {
    "tiny": (6.54, 0.830, 0.855),
    "tiny-light": (5.40, 0.654, 0.676),
    "small": (25.83, 3.143, 3.217),
    "base": (57.40, 6.729, 6.876),
    "base-deep": (100.8, 12.76, 13.02),
}
SMALL = UniTransPoseConfig("test", 32, (1, 1, 2, 1), decoder=16, mlp_ratio=2)


class BothHeads(nn.Module):
    """A network as its table counts it."""

    def __init__(self, network: UniTransPose) -> None:
        super().__init__()
        self.network = network

    def forward(self, images):
        maps, joints = self.network.features(images)
        return self.network.heatmaps(maps), self.network.coordinates(joints)


def build(config: UniTransPoseConfig, seed: int = 0) -> UniTransPose:
    """Return a network whose biases, norms and statistics all matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = UniTransPose(config)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.15)
        for name, parameter in network.named_parameters():
            if "norm" in name and name.endswith("weight"):
                nn.init.uniform_(parameter, 0.5, 1.5)
        for name, buffer in network.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
            elif name.endswith("running_mean"):
                buffer.uniform_(-0.5, 0.5)
    return network.eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 256, 192, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def unified():
    return build(replace(SMALL, joints=23))


@pytest.mark.parametrize("joints", [17, 23])
@pytest.mark.parametrize(
    "variant",
    [pytest.param(v, marks=pytest.mark.slow if v.startswith("base") else ()) for v in VARIANTS],
)
def test_parameters_and_multiply_accumulates(variant, joints):
    config = unitranspose_config(variant, joints=joints)
    network = UniTransPose(config).absorb(False).to("meta")
    millions, *macs = TABLE[variant]
    assert count_parameters(network) / 1e6 == pytest.approx(millions, rel=0.005)
    counted = count_macs(BothHeads(network), torch.zeros(1, 3, 256, 192, device="meta"))
    assert counted / 1e9 == pytest.approx(macs[joints == 23], rel=0.005)


def test_the_page_states_these_sizes_and_joint_sets():
    page = (Path(__file__).resolve().parents[4] / "docs" / "unitranspose.md").read_text()
    rows = [[c.strip() for c in line.split("|")] for line in page.splitlines() if "| " in line]
    stated = {row[1]: row for row in rows if row[1] in VARIANTS}
    assert list(stated) == list(VARIANTS) == list(TABLE)
    for variant, row in stated.items():
        config = unitranspose_config(variant)
        blocks = "-".join(map(str, config.depths))
        sizes = f"{config.dim}, {blocks}, {config.head_dim}, {config.decoder}"
        assert row[2].partition(";")[0] == sizes
        figures = [float(n) for n in re.findall(r"[\d.]+", " ".join(row[3:5]))]
        assert figures == pytest.approx(TABLE[variant], rel=0.005)
    for name in SUBSETS:
        assert f"`{name}`" in page


def test_the_cheaper_form_is_the_only_difference_in_work():
    network, image = UniTransPose(SMALL), torch.zeros(1, 3, 256, 192)
    absorbed = count_macs(network, image)
    plain = count_macs(network.absorb(False), image)
    assert plain == count_macs(NaiveUniTransPose(network), image)
    assert absorbed < 0.97 * plain


@pytest.mark.parametrize("absorb", [True, False])
def test_the_fast_form_equals_the_usual_one(unified, images, absorb):
    naive = NaiveUniTransPose(unified)
    with torch.no_grad():
        maps, joints = unified.absorb(absorb).features(images)
        naive_maps, naive_joints = naive.features(images)
        heatmaps, expected = unified.heatmaps(maps), naive.heatmaps(naive_maps)
        points, expected_points = unified.coordinates(joints), naive.coordinates(naive_joints)
    for a, b in [*zip(maps, naive_maps, strict=True), (joints, naive_joints)]:
        torch.testing.assert_close(a, b, atol=1e-4 * float(b.abs().max()), rtol=0)
    span = float(expected.max() - expected.min())
    torch.testing.assert_close(heatmaps, expected, atol=1e-5 * span, rtol=0)
    torch.testing.assert_close(points, expected_points, atol=1e-5, rtol=0)
    assert heatmaps.std() > 0.01 * span
    unified.absorb(True)


def test_patches_hear_of_other_windows_through_the_joints(unified, images):
    """Change one far corner: with the joints silenced, the first stage's other windows stay."""
    changed = images.clone()
    changed[:, :, 200:, 150:] = 0
    stage = unified.stages[0]
    with torch.no_grad():
        start = [unified.positions[0](unified.steps[0](x)) for x in (images, changed)]
        joints = unified.joint_tokens.expand(2, -1, -1)
        tokens = [x.flatten(2).transpose(1, 2) for x in start]
        first = stage.windows.q_index[0]
        heard = [stage(x, joints)[0][:, first] for x in tokens]
        assert (heard[0] - heard[1]).abs().max() > 1e-6
        for block in stage.blocks:
            saved = block.patch_out.weight.clone()
            block.patch_out.weight[:, 32:] = 0
            deaf = [block(x, joints, stage.windows, stage.whole)[0][:, first] for x in tokens]
            block.patch_out.weight.copy_(saved)
            assert torch.equal(deaf[0], deaf[1])


@pytest.mark.parametrize("name", ["coco17", "mpii16", "aic14", "jrdb17", "left_foot,nose"])
def test_a_subset_is_what_the_full_network_says_of_these_joints(unified, images, name):
    _, chosen = read_out(UNIFIED23, name)
    for head in ("heatmap", "regression"):
        whole, part = (
            UniTransPose(replace(SMALL, joints=23, head=head, readout=readout))
            for readout in (None, chosen)
        )
        for network in (whole, part):
            network.load_state_dict(unified.state_dict())
            network.eval()
        with torch.no_grad():
            torch.testing.assert_close(part(images), whole(images)[:, list(chosen)])


def test_shapes_and_range_of_the_heads(unified, images):
    with torch.no_grad():
        assert unified(images).shape == (2, 23, 64, 48)
        regression = UniTransPose(replace(SMALL, head="regression"))
        points = regression.eval()(images)
    assert points.shape == (2, 17, 4)
    assert 0 <= points.min() and points.max() <= 1
    assert [SMALL.grid(s) for s in STRIDES] == [(64, 48), (32, 24), (16, 12), (8, 6)]


def test_every_parameter_is_trained_by_the_two_heads(images):
    network = build(SMALL).train()
    maps, joints = network.features(images)
    loss = network.heatmaps(maps).square().mean() + network.coordinates(joints).square().mean()
    loss.backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "classic"}, "Unknown head"),
        ({"depths": (2, 2)}, "depths"),
        ({"head_dim": 24}, "do not split"),
        ({"joints": 0}, "0 joints"),
        ({"decoder": 0}, "decoder of 0"),
        ({"readout": (17,)}, r"\[17\]"),
        ({"readout": (1, 1)}, r"\[1, 1\]"),
        ({"readout": ()}, "at least one"),
        ({"height": 224}, "multiple of 256"),
        ({"width": 100}, "multiple of 192"),
        ({"height": 384, "width": 288}, "multiple of 256"),
    ],
)
def test_impossible_networks_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        replace(SMALL, **changes)


def test_unknown_variant_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'tiny'"):
        unitranspose_config("tinny")
