"""Semantic tokens of windows (STViT-R, arXiv 2303.08810): a few per window, made by attention.

s = MHA(LN s0, LN [s0 ; patch])        s0 = adaptive max pool of the window
                                       patch = the window and 3 rows and columns around it,
                                       moved inside the map
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunus.models.layers.local_global.index import (
    AttentionIndex,
    WindowTables,
    grid_windows,
    overlapping_windows,
)
from prunus.models.layers.token_block import TokenBlock

SAMPLES = 3  # semantic tokens per window side, as published
_MARGIN = 3  # rows and columns of a patch beyond its window
Grid = tuple[int, int]


class SemanticBlock(nn.Module):
    """Make semantic tokens out of windows.

    Args:
        dim: Channels.
        heads: Attention heads.
        hidden: Width of the MLP.
        grid: Rows and columns of tokens.
        window: Rows and columns of a window, or the side of a square one; divide the grid.
        samples: Semantic tokens per side of a window; at most its shorter side.
        shortcut: Add the pooled tokens to the attention's output.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int,
        grid: Grid,
        window: int | Grid,
        *,
        samples: int = SAMPLES,
        shortcut: bool = False,
    ) -> None:
        super().__init__()
        window = (window, window) if isinstance(window, int) else window
        self.grid, self.window, self.samples, self.shortcut = grid, window, samples, shortcut
        self.block = TokenBlock(dim, heads, hidden)
        self.coarse: Grid = (grid[0] // window[0] * samples, grid[1] // window[1] * samples)
        queries = grid_windows(self.coarse, (samples, samples))
        rows, columns = (min(w + _MARGIN, g) for w, g in zip(window, grid, strict=True))
        patches = overlapping_windows(grid, window, (rows, columns))
        self.index = AttentionIndex(
            WindowTables(queries.q_index, patches.kv_index, grid[0] * grid[1])
        )

    def pool(self, tokens: Tensor) -> Tensor:
        """Pool each window of tokens (B, N, C); returns (B, S, C), the coarse map row by row."""
        batch, _, dim = tokens.shape
        (high, wide), (rows, columns) = self.window, self.grid
        cut = tokens.reshape(batch, rows // high, high, columns // wide, wide, dim)
        cut = torch.stack([cut[:, :, a:b].amax(dim=2) for a, b in self._bins(high)], dim=2)
        cut = torch.stack([cut[:, :, :, :, a:b].amax(dim=4) for a, b in self._bins(wide)], dim=4)
        return cut.reshape(batch, -1, dim)

    def _bins(self, side: int) -> list[tuple[int, int]]:
        """Return the bounds of adaptive pooling; bins may overlap."""
        count = self.samples
        return [(k * side // count, -(-(k + 1) * side // count)) for k in range(count)]

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, N, C) to semantic tokens (B, S, C)."""
        first, block = self.pool(tokens), self.block
        made = block.layer_scale_1 * block.attn.joint(
            block.norm1(first), block.norm1(tokens), self.index
        )
        return block.finish(first + made if self.shortcut else made)
