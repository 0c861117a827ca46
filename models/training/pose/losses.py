"""Score heatmaps against Gaussian targets, joint by joint."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from prunus.models.training.pose.heatmap_targets import SIGMA, gaussian_targets

_SHARPNESS = 10.0


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
