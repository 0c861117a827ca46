import dataclasses

import pytest
import torch
from torch import nn

from prunus.models.pose.evitpose import evitpose_config
from prunus.models.training.pose.init import (
    cosine_filters,
    level_patches,
    mimic_attention,
    sine_positions,
)
from prunus.models.training.pose.state import (
    build_network,
    freeze,
    moved_to_size,
    pose_optimisers,
    resize_positions,
)
from prunus.models.training.state import Average


def test_cosine_filters_are_orthogonal_so_that_no_channel_repeats_another():
    flat = cosine_filters(192).flatten(1)
    unit = flat / flat.norm(dim=1, keepdim=True)
    off = unit @ unit.T - torch.eye(192)
    assert off.abs().max() < 2e-3


def test_levelling_narrows_the_spread_and_centres_every_channel():
    torch.manual_seed(0)
    patch = nn.Conv2d(3, 192, 16, stride=16, padding=2)
    with torch.no_grad():
        patch.weight.copy_(cosine_filters(192))
    smooth = nn.functional.interpolate(torch.randn(8, 3, 12, 9), size=(128, 96), mode="bicubic")
    images = smooth + 0.05 * torch.randn(8, 3, 128, 96) + 0.7

    def spread():
        with torch.no_grad():
            return patch(images).std((0, 2, 3))

    before = spread()
    level_patches(patch, images)
    after = spread()
    assert after.max() / after.min() < (before.max() / before.min()) ** 0.5
    assert after.max() == pytest.approx(0.8, rel=1e-3)
    with torch.no_grad():
        assert patch(images).mean((0, 2, 3)).abs().max() < 1e-4


def test_near_patches_look_alike_in_their_position_code():
    codes = sine_positions(16, 12, 192)
    assert codes.shape == (192, 192)
    likeness = codes @ codes[6 * 12 + 6]
    assert likeness.argmax() == 6 * 12 + 6
    assert likeness[6 * 12 + 7] > likeness[6 * 12 + 11]


def test_mimetic_attention_starts_by_looking_at_itself():
    torch.manual_seed(0)
    qkv, projection = nn.Linear(192, 576), nn.Linear(192, 192)
    mimic_attention(qkv, projection, heads=3)
    query, key, value = qkv.weight.detach().split(192)
    for head in range(3):
        rows = slice(64 * head, 64 * head + 64)
        product = query[rows].T @ key[rows]
        assert product.diagonal().mean() > 3 * product.abs().mean()
    assert (projection.weight.detach() @ value).diagonal().mean() < -0.2


def test_positions_survive_a_change_of_size():
    network = build_network("tiny", (128, 96), seed=0)
    moved = moved_to_size(network, (256, 192))
    back = resize_positions(moved.state_dict(), (16, 12), (8, 6))["pos_embed"]
    old = network.pos_embed.detach()
    assert nn.functional.cosine_similarity(back.flatten(), old.flatten(), dim=0) > 0.9
    torch.testing.assert_close(moved.blocks[3].mlp.fc1.weight, network.blocks[3].mlp.fc1.weight)


def test_patch_filters_stay_frozen_and_the_average_follows():
    network = build_network("tiny", (64, 48), seed=0)
    freeze(network, 0)
    before = network.patch_embed.weight.detach().clone()
    optimisers = pose_optimisers(network, nn.Linear(2, 2), 1e-2, 0.1, with_muon=False)
    average = Average(network, 0.9)
    network(torch.randn(2, 3, 64, 48)).square().sum().backward()
    old = network.blocks[0].mlp.fc1.weight.detach().clone()
    optimisers.step(1.0)
    average.update(network, step=1000)
    assert torch.equal(network.patch_embed.weight, before)
    now = network.blocks[0].mlp.fc1.weight.detach()
    assert not torch.equal(now, old)
    torch.testing.assert_close(average.state["blocks.0.mlp.fc1.weight"], 0.9 * old + 0.1 * now)


def test_the_variant_decides_the_sizes():
    config = dataclasses.replace(evitpose_config("tiny"), height=64, width=48)
    assert build_network("tiny", (64, 48), 0).config == config
