"""Keep the patches that the joint tokens look at (PPT, arXiv 2209.08194, section 3.2; EViTPose,
arXiv 2503.00232).

Differs from PPT: the surviving indices are sorted, so that tokens stay in raster order; the count
is a constant. EViTPose keeps the union of each joint's best patches, whose size depends on the
picture; ``max`` comes closer to it than PPT's sum.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from prunus.models.tokens.reducer import Place, Side
from prunus.models.tokens.scores import special_probability
from prunus.models.tokens.selection import Merge, SelectingReducer, require_choice
from prunus.runtime.errors import UsageError

Combine = Literal["sum", "max"]


class JointTokenReducer(SelectingReducer):
    """Rank patches by what all special tokens pay them.

    Args:
        place: Where it stands; at least one special token.
        combine: Sum over special tokens (PPT) or their maximum.
        merge: See `SelectingReducer`.
        tau: See `SelectingReducer`.
    """

    def __init__(
        self, place: Place, *, combine: Combine = "sum", merge: Merge = "drop", tau: float = 0.1
    ) -> None:
        super().__init__(place, merge=merge, tau=tau)
        require_choice("combine", combine, get_args(Combine))
        if place.special < 1:
            raise UsageError(
                f"Method 'joint' at block {place.block} scores by special tokens; got none.",
                "Use a method that needs none: hiprune, tome, strided.",
            )
        self.combine: Combine = combine

    def score(self, patches: Tensor, side: Side) -> Tensor:
        """Return (B, N): probabilities summed or maximised over the special tokens."""
        received = special_probability(side.attention[self.place.block], self.place.special)
        return received.sum(dim=1) if self.combine == "sum" else received.amax(dim=1)

    def score_macs(self) -> int:
        """Return the cost of the special tokens' rows."""
        place = self.place
        return place.special * (place.special + place.tokens) * place.dim
