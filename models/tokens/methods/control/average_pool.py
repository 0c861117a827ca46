"""Average equal cells of the grid: the same network at a coarser patch, from here on."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from prunus.models.tokens.cells import membership
from prunus.models.tokens.merging import patch_sizes
from prunus.models.tokens.reducer import Commutes, Place, Reduced, Side, TokenReducer, untouched


class AveragePool(TokenReducer):
    """Means of cells, as square as K allows; what comes out is a grid again.

    A maximum would be no matrix of the patches, so that it could not be restored; there is none.

    Args:
        place: Where it stands.
        counted: Attention behind it counts a mean as the patches that it stands for; EViTPose's own
            score ``pooled`` does not.
    """

    commutes: Commutes = "flip"
    reads_this: ClassVar[bool] = False
    mean: Tensor

    def __init__(self, place: Place, *, counted: bool = True) -> None:
        super().__init__(place)
        self.counted = counted
        self.cell = place.cell("average_pool")
        members = membership(place.require_grid("average_pool"), self.cell)
        self.register_buffer("mean", members / (self.cell[0] * self.cell[1]), persistent=False)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        rows, columns = self.place.require_grid("average_pool")
        return rows // self.cell[0], columns // self.cell[1]

    def forward(self, x: Tensor, side: Side) -> Reduced:
        """Return special tokens + K means, (B, special + K, C)."""
        place = self.place
        if place.keep == place.tokens:
            return untouched(x, place)
        y = self._pool(x[:, place.special :])
        assign = self.mean.expand(x.shape[0], -1, -1)
        whole = torch.cat((x[:, : place.special], y), dim=1)
        if not self.counted:
            return Reduced(whole, None, assign)
        sizes = patch_sizes(side, place, x).unsqueeze(2)
        mass = self._pool(sizes).squeeze(2) * (self.cell[0] * self.cell[1])
        return Reduced(whole, None, assign, mass)

    def _pool(self, patches: Tensor) -> Tensor:
        """Return (B, K, C) of (B, N, C)."""
        (height, width), (down, across) = self.grid, self.cell
        cells = patches.reshape(patches.shape[0], height, down, width, across, -1)
        return cells.mean(dim=(2, 4)).reshape(patches.shape[0], self.place.keep, -1)
