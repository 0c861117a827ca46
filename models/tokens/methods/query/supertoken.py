"""Soft clusters of neighbouring patches (SViT, arXiv 2211.11167, section 3.2).

    S0 = mean of each cell
    A  = softmax of x . S0 / sqrt C over the 3x3 cells around a patch's own
    Y  = A^T X / column sums

One iteration, as released. Neighbours outside the map are zeros that enter the softmax with logit
0, as published. Has no weights, though its network was trained with it.

Differs from the published code: A is computed against all cells and masked to the 3x3 around, which
is one product in place of unfolding; the paper's way back A Y is ``transpose`` but for the column
sums, by which W was divided.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from prunus.models.tokens.cells import membership, to_cells
from prunus.models.tokens.reducer import Commutes, Place, Reduced, Side, TokenReducer, untouched

_HIDDEN = -30000.0  # added to the logits of cells that are not around; fits float16
_TINY = 1e-12


class SuperToken(TokenReducer):
    """One token per cell, gathered from nine cells."""

    commutes: Commutes = "flip"
    reads_this: ClassVar[bool] = False
    bias: Tensor

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._entering = entering = place.require_grid("supertoken")
        self._cell = cell = place.cell("supertoken")
        self._coarse = (entering[0] // cell[0], entering[1] // cell[1])
        members = membership(entering, cell)
        rows, columns = self._coarse
        at = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
        near = ((at[:, None] - at[None]).abs().amax(dim=2) <= 1).float()  # (K, K)
        inside = near.sum(dim=1, keepdim=True)
        # A patch's logits: one column per cell, one more for all of its neighbours outside at once.
        around = torch.where(near > 0, 0.0, _HIDDEN)
        outside = torch.where(inside < 9, (9 - inside).clamp_min(1).log(), _HIDDEN)
        bias = members.transpose(0, 1) @ torch.cat((around, outside), dim=1)
        self.register_buffer("bias", bias, persistent=False)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the cells."""
        return self._coarse

    def association(self, patches: Tensor) -> Tensor:
        """Return A (B, N, K) float32; what a row lacks of 1 went outside the map."""
        first = to_cells(patches, self._entering, self._cell).mean(dim=2)
        logits = (patches * patches.shape[2] ** -0.5) @ first.transpose(1, 2)
        logits = torch.nn.functional.pad(logits.float(), (0, 1)) + self.bias
        return torch.softmax(logits, dim=2)[..., :-1]

    def forward(self, x: Tensor, side: Side) -> Reduced:
        """Return special tokens + K, (B, special + K, C)."""
        if self.place.keep == self.place.tokens:
            return untouched(x, self.place)
        special = self.place.special
        patches = x[:, special:]
        share = self.association(patches).transpose(1, 2)
        assign = share / (share.sum(dim=2, keepdim=True) + _TINY)
        y = assign.to(x.dtype) @ patches
        return Reduced(torch.cat((x[:, :special], y), dim=1), None, assign)

    def macs(self) -> int:
        """Return the cost of the association and of W X."""
        if self.place.keep == self.place.tokens:
            return 0
        return 2 * self.place.keep * self.place.tokens * self.place.dim
