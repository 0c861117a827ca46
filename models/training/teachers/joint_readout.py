"""Ask the joint tokens themselves where their joints are: a help during training, never exported.

A grid decoder alone teaches joint tokens only indirectly, and heatmaps of a left and a right joint
that lie close together hardly punish a blob in the middle. A linear layer that reads coordinates
off the tokens, and a penalty on the vector from each right joint to its left one, make the tokens
look at their joints (which is what ranks the patches) and at which way the person faces.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from prunus.models.training.pose.augment import FLIP_PAIRS

_BETA = 0.05


class JointReadout(nn.Module):
    """Read x, y in 0..1 of the crop from each joint token."""

    def __init__(self, dim: int, joints: int) -> None:
        super().__init__()
        self.line = nn.Linear(dim, 2)
        self.home = nn.Parameter(torch.full((joints, 2), 0.5))
        nn.init.zeros_(self.line.weight)
        nn.init.zeros_(self.line.bias)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map tokens (B,J,D) to coordinates (B,J,2)."""
        return torch.as_tensor(self.line(tokens.float()) + self.home)


def readout_loss(
    found: torch.Tensor, joints: torch.Tensor, image_size: tuple[int, int]
) -> torch.Tensor:
    """Return the weighted error of places and of left-right vectors.

    Args:
        found: float (B,J,2) in 0..1.
        joints: float (B,J,3): x, y in input pixels, weight.
        image_size: Height and width of the input.
    """
    limit = torch.tensor([image_size[1] - 1.0, image_size[0] - 1.0], device=joints.device)
    wanted = joints[..., :2] / limit
    weight = joints[..., 2]
    place = _error(found, wanted, weight)
    left, right = ([pair[side] for pair in FLIP_PAIRS] for side in (0, 1))
    both = weight[:, left] * weight[:, right]
    vector = _error(found[:, left] - found[:, right], wanted[:, left] - wanted[:, right], both)
    return 3 * place + 6 * vector


def _error(found: torch.Tensor, wanted: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    error = functional.smooth_l1_loss(found, wanted, reduction="none", beta=_BETA).sum(-1)
    return (error * weight).sum() / weight.sum().clamp(min=1.0)
