"""Keep what the class token looks at over many blocks (VTC-CLS, arXiv 2412.05819).

The class token's probabilities are summed from a starting block to this one, and the K patches of
the highest sum stay, in raster order.

Differs from the paper's code: the code sums up to the block before the last and prunes once, behind
the encoder, which saves nothing inside it; here the sum ends where the cut is.
"""

from __future__ import annotations

from torch import Tensor

from prunus.models.tokens.reducer import Place, Side
from prunus.models.tokens.scores import class_probability
from prunus.models.tokens.selection import Merge, SelectingReducer


class VtcCls(SelectingReducer):
    """Rank patches by the sum of the class token's attention.

    Args:
        place: Where it stands.
        start: First block of the sum; None: the first that runs on these tokens.
        merge: See `SelectingReducer`.
        tau: See `SelectingReducer`.
    """

    def __init__(
        self,
        place: Place,
        *,
        start: int | None = None,
        merge: Merge = "drop",
        tau: float = 0.1,
    ) -> None:
        super().__init__(place, merge=merge, tau=tau)
        place.require_class_token("vtc_cls")
        first = place.earlier("vtc_cls", "start", place.since if start is None else start)
        self.reads_attention = tuple(range(first, place.block))

    def score(self, patches: Tensor, side: Side) -> Tensor:
        """Return (B, N): sums of probabilities."""
        total = class_probability(side.attention[self.place.block], self.place.special)
        for block in self.reads_attention:
            total = total + class_probability(side.attention[block], self.place.special)
        return total

    def score_macs(self) -> int:
        """Return the cost of the class token's row in each block."""
        row = (self.place.special + self.place.tokens) * self.place.dim
        return (len(self.reads_attention) + 1) * row
