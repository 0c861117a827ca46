"""Selections that do not look at the picture: constant indices, one gather each way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from prunus.models.tokens.reducer import Place, Reduced, Side, TokenReducer


class ConstantSelection(TokenReducer):
    """Base of the plain selections.

    Args:
        place: Where it stands.
        kept: K patches, in any order, without repeats.
    """

    reads_this: ClassVar[bool] = False
    kept: Tensor
    back: Tensor

    def __init__(self, place: Place, kept: Sequence[int]) -> None:
        super().__init__(place)
        self.register_buffer("kept", torch.tensor(sorted(kept)), persistent=False)
        # The way back: row n of the grid, or the kept patch behind them that stands there.
        back = torch.arange(place.tokens)
        back[self.kept] = place.tokens + torch.arange(len(self.kept))
        self.register_buffer("back", back, persistent=False)

    def forward(self, x: Tensor, side: Side) -> Reduced:
        """Return special tokens and the constant patches, (B, special + K, C)."""
        special = torch.arange(self.place.special, device=self.kept.device)
        y = x.index_select(1, torch.cat((special, self.kept + self.place.special)))
        return Reduced(y, self.kept.expand(x.shape[0], -1))

    def put_back(self, y: Tensor, reduced: Reduced, skip: Tensor) -> Tensor:
        """Return patches (B, N, C): those of `skip`, but for the kept ones (B, K, C)."""
        return torch.cat((skip, y.to(skip.dtype)), dim=1).index_select(1, self.back)


def evenly(n: int, k: int) -> Tensor:
    """Return (k,) int64: k of n places, evenly spaced, in the middle of k equal stretches."""
    return torch.tensor([(2 * i + 1) * n // (2 * k) for i in range(k)])
