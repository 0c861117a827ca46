import pytest
import torch

from prunus.models.training.teachers.joint_readout import JointReadout, readout_loss

SIZE = (256, 192)


def _joints():
    generator = torch.Generator().manual_seed(0)
    xy = torch.rand(2, 17, 2, generator=generator) * torch.tensor([191.0, 255.0])
    return torch.cat([xy, torch.ones(2, 17, 1)], 2)


def _exact(joints):
    return joints[..., :2] / torch.tensor([191.0, 255.0])


def test_exact_coordinates_cost_nothing_and_weightless_joints_do_not_count():
    joints = _joints()
    found = _exact(joints)
    assert readout_loss(found, joints, SIZE).item() == pytest.approx(0, abs=1e-9)
    found[:, 9] += 0.7
    assert readout_loss(found, joints, SIZE) > 0.1
    joints[:, 9, 2] = 0
    assert readout_loss(found, joints, SIZE).item() == pytest.approx(0, abs=1e-9)


def test_swapped_sides_cost_more_than_an_error_of_the_same_size():
    joints = _joints()
    exact = _exact(joints)
    swapped, shifted = exact.clone(), exact.clone()
    swapped[:, [5, 6]] = exact[:, [6, 5]]
    shifted[:, [5, 6]] += exact[:, [6, 5]] - exact[:, [5, 6]].flip(1)  # nothing moves
    shifted[:, [5, 6]] += (exact[:, 6:7] - exact[:, 5:6]).abs()
    assert readout_loss(swapped, joints, SIZE) > 2 * readout_loss(shifted, joints, SIZE)


def test_a_fresh_readout_points_at_the_middle_and_learns():
    torch.manual_seed(0)
    readout, joints = JointReadout(32, 17), _joints()
    tokens = torch.randn(2, 17, 32)
    torch.testing.assert_close(readout(tokens), torch.full((2, 17, 2), 0.5))
    optimiser = torch.optim.Adam(readout.parameters(), lr=0.05)
    first = readout_loss(readout(tokens), joints, SIZE)
    for _ in range(60):
        optimiser.zero_grad()
        loss = readout_loss(readout(tokens), joints, SIZE)
        loss.backward()
        optimiser.step()
    assert loss < 0.3 * first
