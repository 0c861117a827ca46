"""Keep the patches of the highest score, whichever score: the plain form of ranking by attention.

Scores: the class token's probability (EViT, arXiv 2202.07800, section 3.2), its logit (GlobalCom2,
arXiv 2501.05179), its probability times the length of the value (ATS, arXiv 2111.15667, section
3.1), or what a patch receives from all tokens (HiPrune, arXiv 2508.00553), which needs no class
token.

Differs from those papers: the score alone is theirs. It is here to tell scores apart from what the
methods do with them.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from prunus.models.tokens.reducer import Place, Side
from prunus.models.tokens.scores import class_logit, class_probability, class_value, column_mean
from prunus.models.tokens.selection import Merge, SelectingReducer, require_choice

Score = Literal["class", "logit", "value", "received"]
_SCORES = {
    "class": class_probability,
    "logit": class_logit,
    "value": class_value,
    "received": column_mean,
}


class TopScore(SelectingReducer):
    """Rank patches by one score of this block's attention.

    Args:
        place: Where it stands.
        by: The score.
        merge: See `SelectingReducer`.
        tau: See `SelectingReducer`.
    """

    def __init__(
        self, place: Place, *, by: Score = "value", merge: Merge = "drop", tau: float = 0.1
    ) -> None:
        super().__init__(place, merge=merge, tau=tau)
        require_choice("by", by, get_args(Score))
        if by != "received":
            place.require_class_token("top")
        if by == "logit":
            self.refuse_fuse("top")
        self.by: Score = by

    def score(self, patches: Tensor, side: Side) -> Tensor:
        """Return (B, N)."""
        return _SCORES[self.by](side.attention[self.place.block], self.place.special)

    def score_macs(self) -> int:
        """Return the cost of one row of logits, or of all."""
        length = self.place.special + self.place.tokens
        return length * self.place.dim * (length if self.by == "received" else 1)
