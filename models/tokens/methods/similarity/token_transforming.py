"""Spread every patch softly over the most important ones (Token Transforming, arXiv 2506.05709).

The K most important patches are seeds; each of the N patches spreads a mass of 1 over them by the
softmax, over seeds, of cosine similarity / tau; rows are normalised by the mass that they got.
Towards tau = 0 each patch joins its nearest seed, towards infinity every token is the mean of all.

Differs from the paper: no code of it was at hand, so that the weights are ours, after what it
claims: many patches go to many tokens. Importance is the class token's attention, or what a patch
receives where there is none; masses are handed on, so that following blocks weigh a token by
log(mass).
"""

from __future__ import annotations

from torch import Tensor

from prunus.models.tokens.reducer import Place, Side
from prunus.models.tokens.scores import importance, importance_macs
from prunus.models.tokens.selection import Merge, SelectingReducer


class TokenTransforming(SelectingReducer):
    """Seeds by importance, masses by similarity."""

    def __init__(self, place: Place, *, merge: Merge = "soft", tau: float = 0.1) -> None:
        super().__init__(place, merge=merge, tau=tau)

    def score(self, patches: Tensor, side: Side) -> Tensor:
        """Return (B, N): the attention that patches receive."""
        return importance(side.attention[self.place.block], self.place)

    def score_macs(self) -> int:
        """Return the cost of the class token's row, or of all rows."""
        return importance_macs(self.place)
