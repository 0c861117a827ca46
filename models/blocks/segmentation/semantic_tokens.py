"""STViT-R's stage: a few semantic tokens work, then every token recovers (arXiv 2303.08810).

Each round of six blocks, on tokens x of a grid cut into windows:

    x  = SwinBlock(x)                                   windows, relative position bias, no shift
    s  = g1 * MHA(LN s0, LN [s0 ; patch])               per window: s0 = adaptive max pool of the
                                                        window to 3x3, patch = window plus 3 rows
                                                        and columns around it, moved inside the map
    s  = Block(query s + table, keys [s ; x])           the learned table in the first round only
    s  = Block(s) within a window's nine;  s = Block(s) among all
    x  = Block(query x, keys s)                         recovery: a dense map again

`Block` and the first two lines of s are `models/layers/token_block.py` and `semantic_block.py`.

What differs: sizes are derived from the grid instead of being fixed to 14x14; windows, overlapping
patches and the nine tokens are tables of `local_global_attention` (s0 are the window's global
tokens, in one softmax with the patch), so nothing is unfolded.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunus.models.blocks.segmentation.checks import divides
from prunus.models.layers.local_global.attention import window_attention
from prunus.models.layers.local_global.index import (
    AttentionIndex,
    grid_windows,
    shifted_windows,
)
from prunus.models.layers.mlp import Mlp
from prunus.models.layers.semantic_block import SAMPLES, SemanticBlock
from prunus.models.layers.token_block import TokenBlock
from prunus.models.segmentation.efa import Grid, to_map, to_tokens


class RelativeBias(nn.Module):
    """Learned bias by relative position in a square window, as in Swin (arXiv 2103.14030)."""

    index: Tensor

    def __init__(self, side: int, heads: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros((2 * side - 1) ** 2, heads))
        place = torch.cartesian_prod(torch.arange(side), torch.arange(side))
        apart = place[:, None] - place[None, :] + side - 1
        self.register_buffer(
            "index", apart[..., 0] * (2 * side - 1) + apart[..., 1], persistent=False
        )

    def forward(self) -> Tensor:
        """Return the bias (1, heads, L, L) of windows of L = side * side tokens."""
        length = self.index.shape[0]
        bias = self.table.index_select(0, self.index.reshape(-1))
        return bias.reshape(1, length, length, -1).permute(0, 3, 1, 2)


class SwinBlock(nn.Module):
    """Window attention and MLP, pre-norm, on tokens (B, N, C).

    Args:
        dim: Channels.
        heads: Attention heads.
        hidden: Width of the MLP.
        grid: Rows and columns of tokens.
        window: Side of a window; divides the grid.
        shift: Rows and columns by which windows are shifted.
    """

    def __init__(
        self, dim: int, heads: int, hidden: int, grid: Grid, window: int, *, shift: int = 0
    ) -> None:
        super().__init__()
        divides("heads", heads, "channels", dim)
        for side in grid:
            divides("a window side", window, "map side", side)
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.bias = RelativeBias(window, heads)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, hidden)
        sides = (window, window)
        self.windows = AttentionIndex(
            shifted_windows(grid, sides, (shift, shift)) if shift else grid_windows(grid, sides)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, N, C) to the same shape."""
        q, k, v = self.qkv(self.norm1(tokens)).chunk(3, dim=2)
        bias = self.bias()
        mixed = window_attention(q, k, v, self.windows, num_heads=self.heads, bias=bias)
        tokens = tokens + self.proj(mixed)
        out: Tensor = tokens + self.mlp(self.norm2(tokens))
        return out


def sample_grid(grid: Grid, window: int) -> Grid:
    """Return rows and columns of the semantic tokens of a grid.

    Raises:
        UsageError: the window does not divide the grid.
    """
    for side in grid:
        divides("a window side", window, "map side", side)
    return grid[0] // window * SAMPLES, grid[1] // window * SAMPLES


class SemanticStage(nn.Module):
    """Rounds of six blocks.

    Args:
        dim: Channels.
        heads: Attention heads.
        hidden: Width of the MLPs.
        grid: Rows and columns of the map.
        window: Side of a window; divides the grid.
        rounds: Number of rounds (published: 3).
        use_global: Add a learned table to the first round's queries.
        shortcut: Add the pooled tokens to the semantic blocks' output.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int,
        grid: Grid,
        window: int,
        *,
        rounds: int,
        use_global: bool = True,
        shortcut: bool = False,
    ) -> None:
        super().__init__()
        coarse = sample_grid(grid, window)
        nine = grid_windows(coarse, (SAMPLES, SAMPLES))
        self.rounds, self.use_global = rounds, use_global
        if use_global:
            self.semantic_token2 = nn.Parameter(0.02 * torch.randn(1, coarse[0] * coarse[1], dim))
        blocks: list[nn.Module] = []
        for _ in range(rounds):
            blocks += [
                SwinBlock(dim, heads, hidden, grid, window),
                SemanticBlock(dim, heads, hidden, grid, window, shortcut=shortcut),
                TokenBlock(dim, heads, hidden),
                TokenBlock(dim, heads, hidden, nine),
                TokenBlock(dim, heads, hidden),
                TokenBlock(dim, heads, hidden),
            ]
        self.blocks = nn.ModuleList(blocks)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, C, H, W) float to the same shape."""
        tokens = to_tokens(image)
        for k in range(self.rounds):
            swin, semantic, spread, local, among, recover = self.blocks[6 * k : 6 * k + 6]
            tokens = swin(tokens)
            made = semantic(tokens)
            asked = made + self.semantic_token2 if self.use_global and k == 0 else made
            made = spread(asked, torch.cat((made, tokens), dim=1))
            tokens = recover(tokens, among(local(made)))
        return to_map(tokens, (image.shape[2], image.shape[3]))


class SwinStage(nn.Module):
    """Plain Swin blocks, every second one shifted by half a window; maps in and out."""

    def __init__(
        self, dim: int, heads: int, hidden: int, grid: Grid, window: int, *, depth: int
    ) -> None:
        super().__init__()
        moved = window // 2 if min(grid) > window else 0
        self.blocks = nn.ModuleList(
            SwinBlock(dim, heads, hidden, grid, window, shift=moved * (k % 2)) for k in range(depth)
        )

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        tokens = to_tokens(image)
        for block in self.blocks:
            tokens = block(tokens)
        return to_map(tokens, (image.shape[2], image.shape[3]))
