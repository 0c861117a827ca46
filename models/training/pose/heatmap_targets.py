"""Draw Gaussian heatmap targets on the UDP grid."""

from __future__ import annotations

import torch

SIGMA = 2.0


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
