"""Keep what the class token looks at, fuse the rest into one token (EViT, arXiv 2202.07800).

Differs from the paper's code: kept tokens stay in raster order, and the fused token counts among
the K, so that K is what the following blocks see.
"""

from __future__ import annotations

from torch import Tensor

from prunus.models.tokens.reducer import Place, Side
from prunus.models.tokens.scores import class_probability
from prunus.models.tokens.selection import Merge, SelectingReducer


class Evit(SelectingReducer):
    """Rank patches by the class token's attention, mean over heads (section 3.2)."""

    def __init__(self, place: Place, *, merge: Merge = "fuse", tau: float = 0.1) -> None:
        super().__init__(place, merge=merge, tau=tau)
        place.require_class_token("evit")

    def score(self, patches: Tensor, side: Side) -> Tensor:
        """Return (B, N): probabilities of the class token."""
        return class_probability(side.attention[self.place.block], self.place.special)

    def score_macs(self) -> int:
        """Return the cost of the class token's row."""
        return (self.place.special + self.place.tokens) * self.place.dim
