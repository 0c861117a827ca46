"""Equal cells of a grid of patches, and the base of the methods that make one token of each.

A cell is a list of patches, rows first, and its concatenation keeps the channels of a patch
together: (row, column, channel), as LLaVA-type code does. PyTorch's `unfold` and `pixel_unshuffle`
put the channel first: weights trained behind those need the columns of their first layer permuted.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from prunus.models.tokens.reducer import Place, Reduced, Side, TokenReducer, untouched

Grid = tuple[int, int]


def to_cells(patches: Tensor, grid: Grid, cell: Grid) -> Tensor:
    """Return (B, cells, patches of a cell, C), both row by row, of patches (B, N, C)."""
    batch, _, dim = patches.shape
    rows, columns = grid[0] // cell[0], grid[1] // cell[1]
    cut = patches.reshape(batch, rows, cell[0], columns, cell[1], dim).transpose(2, 3)
    return cut.reshape(batch, rows * columns, cell[0] * cell[1], dim)


def from_cells(cells: Tensor, grid: Grid, cell: Grid) -> Tensor:
    """Return patches (B, N, C) of cells (B, cells, patches of a cell, C)."""
    batch, dim = cells.shape[0], cells.shape[3]
    rows, columns = grid[0] // cell[0], grid[1] // cell[1]
    cut = cells.reshape(batch, rows, columns, cell[0], cell[1], dim).transpose(2, 3)
    return cut.reshape(batch, grid[0] * grid[1], dim)


def membership(grid: Grid, cell: Grid) -> Tensor:
    """Return (cells, N) float32: 1 where a patch lies in a cell."""
    places = torch.arange(grid[0] * grid[1])
    table = to_cells(places.reshape(1, -1, 1), grid, cell)[0, :, :, 0]
    return (table.unsqueeze(2) == places).any(dim=1).float()


class CellReducer(TokenReducer):
    """Base of the methods that make one token of each cell; a subclass says how in `mix`.

    What a token is made of need not be of the form W X; the reported W is that of the cell's mean.

    Args:
        place: Where it stands; K is a number of equal cells of its grid.
        method: Name, for messages.
    """

    convex: bool = False
    reads_this: ClassVar[bool] = False
    members: Tensor

    def __init__(self, place: Place, method: str) -> None:
        super().__init__(place)
        self.cell = place.cell(method)
        self.dim = place.require_dim(method)
        self.area = self.cell[0] * self.cell[1]
        self._entering = place.require_grid(method)
        self.register_buffer("members", membership(self._entering, self.cell), persistent=False)

    @property
    def grid(self) -> Grid:
        """Rows and columns of the cells."""
        return self._entering[0] // self.cell[0], self._entering[1] // self.cell[1]

    def cells(self, patches: Tensor) -> Tensor:
        """Return (B, K, patches of a cell, C) of patches (B, N, C)."""
        return to_cells(patches, self._entering, self.cell)

    def spread(self, weights: Tensor) -> Tensor:
        """Return W (B, K, N) of weights (B, K, patches of a cell)."""
        flat = from_cells(weights.unsqueeze(3), self._entering, self.cell)
        return self.members * flat.transpose(1, 2)

    def mix(self, patches: Tensor, side: Side) -> Tensor:
        """Return tokens (B, K, C) of patches (B, N, C)."""
        raise NotImplementedError

    def mix_macs(self) -> int:
        """Return the multiply-accumulates of `mix`."""
        raise NotImplementedError

    def macs(self) -> int:
        """Return the multiply-accumulates; none where every patch is a cell."""
        return 0 if self.area == 1 else self.mix_macs()

    def forward(self, x: Tensor, side: Side) -> Reduced:
        """Return special tokens + K, (B, special + K, C)."""
        if self.area == 1:
            return untouched(x, self.place)
        special = self.place.special
        y = self.mix(x[:, special:], side)
        mean = (self.members / self.area).expand(x.shape[0], -1, -1)
        return Reduced(torch.cat((x[:, :special], y), dim=1), None, mean)


class CellMlp(nn.Module):
    """LayerNorm over a whole cell, Linear, exact GELU, Linear: the projector behind an unshuffle.

    Args:
        area: Patches of a cell.
        dim: Channels of a patch and of the token.
    """

    def __init__(self, area: int, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(area * dim)
        self.fc1 = nn.Linear(area * dim, dim)
        self.fc2 = nn.Linear(dim, dim)

    def forward(self, cells: Tensor) -> Tensor:
        """Map (B, K, area, C) to (B, K, C)."""
        out: Tensor = self.fc2(nn.functional.gelu(self.fc1(self.norm(cells.flatten(2)))))
        return out
