"""Between feature maps and tokens: window order, and where a token stands.

Tokens of a stage are stored window by window. A convolution's map has to be transposed into tokens
anyway, and one transpose can do both; so window attention needs no partition of its own, and every
window is a run of neighbouring rows in memory.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def tokens_of_map(features: Tensor, window: tuple[int, int]) -> Tensor:
    """Return tokens (B, H * W, C), window by window, of a map (B, C, H, W).

    Args:
        features: The map; `window` divides H and W.
        window: Rows and columns of a window.
    """
    batch, channels, rows, columns = features.shape
    high, wide = window
    cells = features.reshape(batch, channels, rows // high, high, columns // wide, wide)
    return cells.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, channels)


def map_of_tokens(tokens: Tensor, grid: tuple[int, int], window: tuple[int, int]) -> Tensor:
    """Return the map (B, C, H, W) of tokens (B, H * W, C) in window order: the inverse.

    Args:
        tokens: Tokens of a stage.
        grid: H and W.
        window: Rows and columns of a window.
    """
    batch, _, channels = tokens.shape
    (rows, columns), (high, wide) = grid, window
    cells = tokens.reshape(batch, rows // high, columns // wide, high, wide, channels)
    return cells.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, rows, columns)


class PositionCode(nn.Module):
    """A learned code per row and one per column, added to a map.

    Rows and columns apart take (H + W) C values, where one code per token takes H W C. Exported,
    their sum is one constant.
    """

    def __init__(self, channels: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(1, channels, grid[0], 1))
        self.columns = nn.Parameter(torch.zeros(1, channels, 1, grid[1]))
        for table in (self.rows, self.columns):
            nn.init.trunc_normal_(table, std=0.02)

    def forward(self, features: Tensor) -> Tensor:
        """Return the map (B, C, H, W) with its codes added."""
        return features + (self.rows + self.columns)
