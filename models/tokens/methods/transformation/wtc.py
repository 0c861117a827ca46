"""Pool each cell by what is in it (windowed token compression of LLaVA-UHD v3, arXiv 2511.21150).

    w = softmax over the cell, per channel, of MLP([x ; mean of the cell])     y = sum of w x

Differs from the published code: a fixed grid instead of pictures of varying size in a loop; its
rearrangement into 16 heads, which changes nothing about this softmax, is left out; the last layer
starts at zero, so that an untrained cut is average pooling. The reported W is the mean over
channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunus.models.tokens.cells import CellReducer
from prunus.models.tokens.reducer import Commutes, Place, Reduced, Side, untouched


class Wtc(CellReducer):
    """A weighted mean of each cell, with weights for each channel."""

    convex: bool = True
    commutes: Commutes = "flip"

    def __init__(self, place: Place) -> None:
        super().__init__(place, "wtc")
        self.fc1 = nn.Linear(2 * self.dim, self.dim)
        self.fc2 = nn.Linear(self.dim, self.dim)
        nn.init.zeros_(self.fc2.weight)
        nn.init.zeros_(self.fc2.bias)

    def weights(self, cells: Tensor) -> Tensor:
        """Return (B, K, patches of a cell, C) float32 that sum to 1 over a cell."""
        mean = cells.mean(dim=2, keepdim=True).expand_as(cells)
        hidden = nn.functional.gelu(self.fc1(torch.cat((cells, mean), dim=3)))
        return torch.softmax(self.fc2(hidden).float(), dim=2)

    def forward(self, x: Tensor, side: Side) -> Reduced:
        """Return special tokens + K, (B, special + K, C)."""
        if self.area == 1:
            return untouched(x, self.place)
        special = self.place.special
        cells = self.cells(x[:, special:])
        weights = self.weights(cells)
        y = (cells * weights.to(x.dtype)).sum(dim=2)
        assign = self.spread(weights.mean(dim=3))
        return Reduced(torch.cat((x[:, :special], y), dim=1), None, assign)

    def mix_macs(self) -> int:
        """Return the cost of the MLP; the weighted sum is element-wise."""
        return 3 * self.place.tokens * self.dim**2
