"""Selections that do not look at the picture: constant indices, one gather in the graph."""

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

    def __init__(self, place: Place, kept: Sequence[int]) -> None:
        super().__init__(place)
        self.register_buffer("kept", torch.tensor(sorted(kept)), persistent=False)

    def forward(self, x: Tensor, side: Side) -> Reduced:
        """Return special tokens and the constant patches, (B, special + K, C)."""
        special = torch.arange(self.place.special, device=self.kept.device)
        y = x.index_select(1, torch.cat((special, self.kept + self.place.special)))
        return Reduced(y, self.kept.expand(x.shape[0], -1))


def evenly(n: int, k: int) -> Tensor:
    """Return (k,) int64: k of n places, evenly spaced, in the middle of k equal stretches."""
    return torch.tensor([(2 * i + 1) * n // (2 * k) for i in range(k)])
