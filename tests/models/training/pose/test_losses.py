import pytest
import torch

from prunus.models.pose.decode import udp_dark_decode
from prunus.models.training.pose.losses import agreement_loss, gaussian_targets, heatmap_loss

SIZE, GRID = (256, 192), (64, 48)


def _joints(seed=0):
    generator = torch.Generator().manual_seed(seed)
    xy = torch.rand(2, 17, 2, generator=generator) * torch.tensor([130.0, 190.0]) + 30
    return torch.cat([xy, torch.ones(2, 17, 1)], 2)


def test_decoding_a_target_gives_the_joint_back():
    joints = _joints()
    decoded = udp_dark_decode(gaussian_targets(joints, SIZE, GRID))
    factor = torch.tensor([191 / 47, 255 / 63])
    torch.testing.assert_close(decoded[..., :2] * factor, joints[..., :2], atol=0.15, rtol=0)
    assert decoded[..., 2].min() > 0.9


def test_a_joint_far_outside_asks_for_an_empty_map():
    joints = torch.tensor([[[-60.0, 100.0, 0.2]]])
    assert gaussian_targets(joints, SIZE, GRID).max() < 1e-6


def test_an_empty_map_costs_one_and_a_perfect_map_nothing():
    joints = _joints()
    target = gaussian_targets(joints, SIZE, GRID)
    assert heatmap_loss(torch.zeros_like(target), joints, SIZE).item() == pytest.approx(1, abs=0.02)
    assert heatmap_loss(target, joints, SIZE).item() == pytest.approx(0, abs=1e-9)


def test_a_joint_without_weight_does_not_count():
    joints = _joints()
    maps = gaussian_targets(joints, SIZE, GRID)
    maps[:, 3] = 5.0
    joints[:, 3, 2] = 0
    for locate in (0.0, 0.5):
        spoilt = heatmap_loss(maps, joints, SIZE, locate)
        clean = heatmap_loss(gaussian_targets(joints, SIZE, GRID), joints, SIZE, locate)
        torch.testing.assert_close(spoilt, clean)


def test_the_place_loss_prefers_the_right_place():
    joints = _joints()
    right = gaussian_targets(joints, SIZE, GRID) * 0.1
    wrong = right.flip(3)
    gap = [
        float(heatmap_loss(wrong, joints, SIZE, w) - heatmap_loss(right, joints, SIZE, w))
        for w in (0.0, 0.3)
    ]
    assert gap[1] > 1.5 * gap[0] > 0


def test_two_equal_readings_agree_and_a_lost_joint_counts_one():
    target = gaussian_targets(_joints(), SIZE, GRID)
    assert agreement_loss(target, target) == 0
    lost = agreement_loss(target, torch.zeros_like(target))
    assert lost == pytest.approx(1.0, abs=0.1)
