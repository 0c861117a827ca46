"""Tokens that are weighted means of all patches: W itself comes out of the method."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from prunus.models.tokens.reducer import Commutes, Reduced, Side, TokenReducer, untouched


class PoolingReducer(TokenReducer):
    """Base of the methods whose matrix W is dense; a subclass computes it."""

    commutes: Commutes = "permutation"
    reads_this: ClassVar[bool] = False

    def weights(self, patches: Tensor) -> Tensor:
        """Return W (B, K, N) float32, rows summing to 1, of patches (B, N, C)."""
        raise NotImplementedError

    def forward(self, x: Tensor, side: Side) -> Reduced:
        """Return special tokens + K, (B, special + K, C)."""
        if self.place.keep == self.place.tokens:
            return untouched(x, self.place)
        special = self.place.special
        patches = x[:, special:]
        assign = self.weights(patches)
        y = assign.to(x.dtype) @ patches
        return Reduced(torch.cat((x[:, :special], y), dim=1), None, assign)

    def scorer_macs(self) -> int:
        """Return the multiply-accumulates of W."""
        return 0

    def macs(self) -> int:
        """Return the cost of W and of W X; none where all patches stay."""
        place = self.place
        if place.keep == place.tokens:
            return 0
        return self.scorer_macs() + place.keep * place.tokens * place.dim
