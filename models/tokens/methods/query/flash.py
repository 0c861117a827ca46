"""Latent queries, each a weighted mean of all patches (FLASH's compressor, arXiv 2505.12728).

    W = softmax over patches of A X^T,  A (K, C) learned        Y = W X

TokenLearner with a linear scorer. Differs from the published code: it compresses what enters a
draft language model (576 to 64 tokens); here it stands inside an encoder.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunus.models.tokens.methods.query.pooling import PoolingReducer
from prunus.models.tokens.reducer import Place


class Flash(PoolingReducer):
    """One learned query per token."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.queries = nn.Linear(place.require_dim("flash"), place.keep, bias=False)

    def weights(self, patches: Tensor) -> Tensor:
        """Return W (B, K, N)."""
        return torch.softmax(self.queries(patches).transpose(1, 2).float(), dim=2)

    def scorer_macs(self) -> int:
        """Return the cost of the queries."""
        return self.place.keep * self.place.tokens * self.place.dim
