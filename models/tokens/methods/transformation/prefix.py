"""Keep the first K tokens: prefix truncation (One-D-Piece, arXiv 2501.10064; FlexTok, arXiv
2502.13967).

W = [I_K 0]: one Slice. For one-dimensional tokens that were trained with their tail dropped at
random lengths, so that any prefix is a coarse code; ALIT's (arXiv 2411.02393) valid lengths are the
ends of its rounds. On the patches of an ordinary network it keeps the top of the picture.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from prunus.models.tokens.reducer import Reduced, Side, TokenReducer


class Prefix(TokenReducer):
    """The first K tokens, whatever they hold."""

    reads_this: ClassVar[bool] = False

    def forward(self, x: Tensor, side: Side) -> Reduced:
        """Return special tokens + the first K, (B, special + K, C)."""
        kept = torch.arange(self.place.keep, device=x.device).expand(x.shape[0], -1)
        return Reduced(x[:, : self.place.special + self.place.keep], kept)
