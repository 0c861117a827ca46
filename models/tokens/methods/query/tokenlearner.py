"""Learned weighted means (TokenLearner v1.1) and a way back (TokenFuser), arXiv 2106.11297.

    W = softmax over patches of MLP_64(LN X)      Y = W X
    back: X + sigmoid(MLP_64(LN X)) LN(Linear over the K tokens of LN Y)

The linear layer over tokens starts at zero, as published, and so does the way back; the norm behind
it makes its first gradients large: clip them. Insert it once, at half or three quarters of the
depth. K tokens have no order and no place: what they know of it is in the features.

Differs from the published code: GELU is exact.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunus.models.tokens.methods.query.pooling import PoolingReducer
from prunus.models.tokens.reducer import Place, Reduced
from prunus.runtime.errors import UsageError


class TokenLearner(PoolingReducer):
    """One softmax over patches per token.

    Args:
        place: Where it stands.
        width: Hidden width of the scoring MLP, and of the fuser's.
    """

    def __init__(self, place: Place, *, width: int = 64) -> None:
        super().__init__(place)
        dim = place.require_dim("tokenlearner")
        if width < 1:
            raise UsageError(
                f"Option 'width' of method 'tokenlearner' is {width}; expected 1 or more."
            )
        self.width = width
        self.scorer = scorer(dim, width, place.keep)
        self.fuser = TokenFuser(dim, width, place.keep)

    def weights(self, patches: Tensor) -> Tensor:
        """Return W (B, K, N)."""
        return torch.softmax(self.scorer(patches).transpose(1, 2).float(), dim=2)

    def scorer_macs(self) -> int:
        """Return the cost of the MLP."""
        return self.place.tokens * self.width * (self.place.dim + self.place.keep)

    def _learned(self, y: Tensor, reduced: Reduced, skip: Tensor) -> Tensor:
        out: Tensor = skip + self.fuser(y, skip)
        return out


def scorer(dim: int, width: int, tokens: int) -> nn.Sequential:
    """Return LayerNorm and an MLP from C channels to a value for each of K tokens."""
    return nn.Sequential(
        nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, width), nn.GELU(), nn.Linear(width, tokens)
    )


class TokenFuser(nn.Module):
    """What is added to N patches after K tokens were worked on; zero while untrained.

    Args:
        dim: Channels.
        width: Hidden width of the MLP.
        tokens: K.
    """

    def __init__(self, dim: int, width: int, tokens: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.mix = nn.Linear(tokens, tokens)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.scorer = scorer(dim, width, tokens)
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)

    def forward(self, y: Tensor, skip: Tensor) -> Tensor:
        """Map tokens (B, K, C) and the patches before the cut (B, N, C) to (B, N, C)."""
        mixed = self.norm2(self.mix(self.norm1(y).transpose(1, 2)).transpose(1, 2))
        out: Tensor = torch.sigmoid(self.scorer(skip)) @ mixed
        return out
