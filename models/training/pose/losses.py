"""Score heatmaps against Gaussian targets on the UDP grid, joint by joint."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

SIGMA = 2.0  # of a target, in heatmap cells
_SHARPNESS = 10.0


def gaussian_targets(
    joints: torch.Tensor, image_size: tuple[int, int], grid: tuple[int, int], sigma: float = SIGMA
) -> torch.Tensor:
    """Return heatmaps (B,J,h,w) float32 whose peak of 1 lies exactly on the joint.

    Args:
        joints: float (B,J,2 or 3): x, y in input pixels (0..W-1, 0..H-1).
        image_size: Height and width of the input.
        grid: Height and width of the heatmaps.
        sigma: Standard deviation in heatmap cells.
    """
    rows = torch.arange(grid[0], dtype=torch.float32, device=joints.device)
    cols = torch.arange(grid[1], dtype=torch.float32, device=joints.device)
    x = joints[..., 0:1] * ((grid[1] - 1) / (image_size[1] - 1))
    y = joints[..., 1:2] * ((grid[0] - 1) / (image_size[0] - 1))
    across = torch.exp(-((cols - x) ** 2) / (2 * sigma**2))
    down = torch.exp(-((rows - y) ** 2) / (2 * sigma**2))
    return down[..., :, None] * across[..., None, :]


def heatmap_loss(
    heatmaps: torch.Tensor,
    joints: torch.Tensor,
    image_size: tuple[int, int],
    locate: float = 0.0,
    sigma: float = SIGMA,
) -> torch.Tensor:
    """Return the mean loss of a batch.

    The squared error per joint, weighted with the joint's weight, is ViTPose's loss up to a
    constant. ``locate`` adds a cross-entropy between the softmax over places and the target: its
    gradient does not vanish while the maps are still empty, which shortens a training from scratch.

    Args:
        heatmaps: float (B,J,h,w).
        joints: float (B,J,3): x, y in input pixels, weight.
        image_size: Height and width of the input.
        locate: Weight of the cross-entropy.
        sigma: Standard deviation of the targets in heatmap cells.
    """
    maps = heatmaps.float()
    target = gaussian_targets(joints, image_size, (maps.shape[2], maps.shape[3]), sigma)
    # The integral of a target's square: it makes the loss of an empty map 1.
    energy = math.pi * sigma**2
    weight = joints[..., 2]
    total = torch.clamp(weight.sum(), min=1.0)
    error = ((maps - target) ** 2).sum((2, 3)) / energy
    loss = (error * weight).sum() / total
    if locate > 0:
        mass = target.flatten(2)
        volume = mass.sum(2, keepdim=True)
        logs = functional.log_softmax(maps.flatten(2) * _SHARPNESS, dim=2)
        entropy = -(mass / volume.clamp(min=1e-6) * logs).sum(2)
        # A Gaussian that lies mostly outside says nothing about where the joint is.
        inside = weight * (volume[..., 0] > energy)
        loss = loss + locate * (entropy * inside).sum() / total
    return loss


def agreement_loss(one: torch.Tensor, other: torch.Tensor, sigma: float = SIGMA) -> torch.Tensor:
    """Return how far two readings of the same crops lie apart; an empty map against a target is 1.

    Two selections of patches that differ by noise should end in one heatmap: then the few tokens
    that change places where a network computes in low precision move no joint.

    Args:
        one: float (B,J,h,w).
        other: The same crops' second heatmaps.
        sigma: Standard deviation of the targets in heatmap cells.
    """
    energy = math.pi * sigma**2
    return ((one.float() - other.float()) ** 2).sum((2, 3)).mean() / energy
