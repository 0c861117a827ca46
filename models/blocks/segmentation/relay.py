"""RelayFormer's stage: tiles work alone, a few relay tokens talk across tiles (arXiv 2508.09459).

The map is cut into overlapping tiles. Each tile is a sequence of its own: some relay tokens, then
its tokens. Layer i of a stage:

    x   = Block_i(x; local LoRA)                    every tile alone
    loc = mean of a token over the tiles that hold it
    rel = Block_{i+1}(all relays of all tiles; global LoRA, rotary positions)
    x   = [rel ; loc]

So every block but the first serves two purposes with one base weight and two low-rank additions,
W + (alpha / rank) (A B)^T. Rotary positions are four groups of 8 dimensions (time, relay, tile row,
tile column) with frequencies 10000^(-k/4). As published, sines and cosines are repeated pairwise
while the rotation swaps halves, which is not a rotation; the arithmetic is kept.

What differs: relays are a table of the stage (the published network is one stage and uses the class
token and two registers); any number of tiles per side, whose starts are spread evenly; stitching is
four gathers by constant tables; low-rank products are merged into the weights (`LoraLinear.merged`
does it once).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.models.blocks.segmentation.checks import divides
from prunus.models.segmentation.efa import Grid, to_map, to_tokens
from prunus.runtime.errors import UsageError

Path = Literal["local", "global"]
ROTARY = 32  # leading dimensions of a head that carry positions
_GROUP = 8  # dimensions per coordinate
RANK, ALPHA = 8, 16.0


class LoraLinear(nn.Module):
    """A linear layer with a low-rank addition for each purpose.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        paths: Purposes that it serves.
        rank: Rank of the additions.
    """

    def __init__(
        self, inputs: int, outputs: int, paths: tuple[Path, ...], rank: int = RANK
    ) -> None:
        super().__init__()
        self.paths = paths
        self.base = nn.Linear(inputs, outputs)
        self.scale = ALPHA / rank
        for path in paths:
            self.register_parameter(f"{path}_a", nn.Parameter(0.01 * torch.randn(inputs, rank)))
            self.register_parameter(f"{path}_b", nn.Parameter(torch.zeros(rank, outputs)))

    def forward(self, x: Tensor, path: Path) -> Tensor:
        """Map (..., inputs) to (..., outputs) for one purpose."""
        return functional.linear(x, self.weight(path), self.base.bias)

    def weight(self, path: Path) -> Tensor:
        """Return W + scale * (A B)^T (outputs, inputs)."""
        a, b = self.get_parameter(f"{path}_a"), self.get_parameter(f"{path}_b")
        return self.base.weight + self.scale * (a @ b).t()

    def merged(self) -> MergedLinear:
        """Return the same function without low-rank products."""
        return MergedLinear(self, self.paths)


class MergedLinear(nn.Module):
    """A `LoraLinear` with one merged weight per purpose: two copies, no low-rank product."""

    def __init__(self, layer: LoraLinear, paths: tuple[Path, ...]) -> None:
        super().__init__()
        self.bias = layer.base.bias
        for path in paths:
            self.register_parameter(f"{path}_weight", nn.Parameter(layer.weight(path).detach()))

    def forward(self, x: Tensor, path: Path) -> Tensor:
        """Map (..., inputs) to (..., outputs) for one purpose."""
        return functional.linear(x, self.get_parameter(f"{path}_weight"), self.bias)


class RelayBlock(nn.Module):
    """A pre-norm ViT block whose four weights each serve one or two purposes."""

    def __init__(self, dim: int, heads: int, hidden: int, paths: tuple[Path, ...]) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.qkv = LoraLinear(dim, 3 * dim, paths)
        self.proj = LoraLinear(dim, dim, paths)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.fc1 = LoraLinear(dim, hidden, paths)
        self.fc2 = LoraLinear(hidden, dim, paths)

    def forward(self, x: Tensor, path: Path, rotary: Tensor | None = None) -> Tensor:
        """Map (B, L, C) to the same shape; `rotary` (2, L, 32) holds cosines and sines."""
        each = self.qkv(self.norm1(x), path).unflatten(2, (3, self.heads, -1))
        q, k, v = each.permute(2, 0, 3, 1, 4)
        if rotary is not None:
            q, k = turn(q, rotary), turn(k, rotary)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.proj(mixed, path)
        hidden = functional.gelu(self.fc1(self.norm2(x), path))
        out: Tensor = x + self.fc2(hidden, path)
        return out


def turn(x: Tensor, rotary: Tensor) -> Tensor:
    """Apply positions to the first 32 dimensions of (..., L, d): x cos + swap(x) sin."""
    head, rest = x[..., :ROTARY], x[..., ROTARY:]
    halves = head.unflatten(-1, (ROTARY // _GROUP, 2, _GROUP // 2))
    swapped = torch.stack((-halves[..., 1, :], halves[..., 0, :]), dim=-2).flatten(-3)
    turned = head * rotary[0] + swapped * rotary[1]
    return torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned


def relay_positions(tiles: Grid, relays: int) -> Tensor:
    """Return cosines and sines (2, tiles * relays, 32) of a single picture's relay tokens."""
    row, column, token = torch.meshgrid(
        torch.arange(tiles[0]), torch.arange(tiles[1]), torch.arange(relays), indexing="ij"
    )
    place = torch.stack((torch.zeros_like(row), token, row, column), dim=-1).reshape(-1, 4)
    frequencies = 10000.0 ** -(torch.arange(_GROUP // 2).double() / (_GROUP // 2))
    angles = (place[:, :, None] * frequencies).repeat_interleave(2, dim=2).flatten(1)
    return torch.stack((angles.cos(), angles.sin())).float()


def tile_starts(length: int, tiles: int, overlap: int) -> tuple[int, list[int]]:
    """Return the side of tiles and their starts on an axis, evenly spread.

    Args:
        length: Positions on the axis.
        tiles: Number of tiles.
        overlap: Positions that neighbours share, at least.

    Raises:
        UsageError: tiles that do not fit, or positions held by three tiles.
    """
    side = -(-(length + (tiles - 1) * overlap) // tiles)
    starts = [round(k * (length - side) / (tiles - 1)) for k in range(tiles)] if tiles > 1 else [0]
    crowded = any(starts[k + 2] < starts[k] + side for k in range(tiles - 2))
    if tiles < 1 or overlap < 0 or side > length or crowded:
        raise UsageError(
            f"{tiles} tiles that overlap by {overlap} do not fit on {length} positions.",
            "Choose fewer tiles, or an overlap of less than half a tile.",
        )
    return side, starts


class Tiling(nn.Module):
    """Constant tables between a map and its tiles.

    Args:
        grid: Rows and columns of the map.
        tiles: Rows and columns of tiles.
        overlap: Positions that neighbouring tiles share.
    """

    cut_index: Tensor
    stitch_index: Tensor

    def __init__(self, grid: Grid, tiles: Grid, overlap: int) -> None:
        super().__init__()
        axes = [tile_starts(g, t, overlap) for g, t in zip(grid, tiles, strict=True)]
        (high, tops), (wide, lefts) = axes
        self.count, self.length = len(tops) * len(lefts), high * wide
        plane = torch.arange(grid[0] * grid[1]).reshape(grid)
        cut = [plane[y : y + high, x : x + wide].flatten() for y in tops for x in lefts]
        self.register_buffer("cut_index", torch.cat(cut), persistent=False)
        # Each position is held by one or two tiles per axis; one counts twice.
        rows, columns = (_holders(g, *a) for g, a in zip(grid, axes, strict=True))
        sources = []
        for tile_y, at_y in rows:
            for tile_x, at_x in columns:
                tile = tile_y[:, None] * len(lefts) + tile_x[None]
                place = at_y[:, None] * wide + at_x[None]
                sources.append((tile * self.length + place).flatten())
        self.register_buffer("stitch_index", torch.stack(sources), persistent=False)

    def cut(self, tokens: Tensor) -> Tensor:
        """Map (B, N, C) to tiles (B, T, L, C)."""
        picked = tokens.index_select(1, self.cut_index)
        tiles: Tensor = picked.unflatten(1, (self.count, self.length))
        return tiles

    def stitch(self, tiles: Tensor) -> Tensor:
        """Map tiles (B, T, L, C) to (B, N, C): means where they overlap."""
        flat = tiles.flatten(1, 2)
        first, second, third, fourth = (flat.index_select(1, index) for index in self.stitch_index)
        return 0.25 * ((first + second) + (third + fourth))


def _holders(length: int, side: int, starts: list[int]) -> list[tuple[Tensor, Tensor]]:
    """Return twice (tile, place in it) for each position: its first and its last holder."""
    found = []
    for last in (False, True):
        tile = [
            [k for k, start in enumerate(starts) if start <= position < start + side][-int(last)]
            for position in range(length)
        ]
        place = [position - starts[k] for position, k in enumerate(tile)]
        found.append((torch.tensor(tile), torch.tensor(place)))
    return found


class RelayStage(nn.Module):
    """Blocks on tiles, with relays between them.

    Args:
        dim: Channels.
        heads: Attention heads of 32 dimensions or more.
        hidden: Width of the MLPs.
        grid: Rows and columns of the map.
        tiles: Rows and columns of tiles.
        depth: Blocks.
        overlap: Positions that neighbouring tiles share, at least (published: 2).
        relays: Relay tokens per tile (published: 3).

    Raises:
        UsageError: heads that are too small or do not divide, tiles that do not fit.
    """

    rotary: Tensor

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int,
        *,
        grid: Grid,
        tiles: Grid,
        depth: int,
        overlap: int = 2,
        relays: int = 3,
    ) -> None:
        super().__init__()
        divides("heads", heads, "channels", dim)
        if dim // heads < ROTARY:
            raise UsageError(
                f"Got heads of {dim // heads} dimensions; rotary positions need {ROTARY}.",
                f"Use at most {max(dim // ROTARY, 1)} heads.",
            )
        self.relays = relays
        self.tiling = Tiling(grid, tiles, overlap)
        self.table = nn.Parameter(0.02 * torch.randn(1, relays, dim))
        self.blocks = nn.ModuleList(
            RelayBlock(dim, heads, hidden, ("local", "global") if k else ("local",))
            for k in range(depth)
        )
        self.register_buffer("rotary", relay_positions(tiles, relays), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, C, H, W) float to the same shape."""
        batch, count = image.shape[0], self.tiling.count
        tokens = to_tokens(image)
        relays = self.table.expand(batch * count, -1, -1)
        for k, block in enumerate(self.blocks):
            tiles = self.tiling.cut(tokens).flatten(0, 1)
            x = block(torch.cat((relays, tiles), dim=1), "local")
            tokens = self.tiling.stitch(x[:, self.relays :].unflatten(0, (batch, count)))
            if k + 1 < len(self.blocks):
                told = x[:, : self.relays].reshape(batch, count * self.relays, -1)
                told = self.blocks[k + 1](told, "global", self.rotary)
                relays = told.reshape(batch * count, self.relays, -1)
        return to_map(tokens, (image.shape[2], image.shape[3]))
