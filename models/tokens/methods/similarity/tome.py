"""Merge similar tokens pairwise (ToMe, arXiv 2210.09461, section 3).

Patches are split alternately; each of the first set finds its most similar in the second; the N - K
most similar pairs become one token each, a mean weighted by size. At most half of the tokens can go
in one cut. Off the shelf the following blocks add log(size) to their logits (proportional
attention), which `prune` does.

Differs from the paper's code: special tokens are set aside, not only the class token; the merge is
a matrix product with a one-hot assignment, as reducing scatters are not portable.
"""

from __future__ import annotations

from torch import Tensor

from prunus.models.tokens.merging import MergingReducer, bipartite, hard_share, most_merged
from prunus.models.tokens.reducer import Place, Side
from prunus.models.tokens.scores import mean_key


class ToMe(MergingReducer):
    """Bipartite soft matching on the mean keys of the heads.

    What comes out: the first set without its merged ones, then the second set.
    """

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.merged = most_merged(place, "tome", place.tokens // 2)

    def share(self, patches: Tensor, side: Side) -> Tensor:
        """Return (B, K, N) with one 1 a column."""
        metric = mean_key(side.attention[self.place.block], self.place.special).detach()
        return hard_share(bipartite(metric, self.merged), self.place.keep)

    def share_macs(self) -> int:
        """Return the cost of comparing each of the first set with each of the second."""
        place = self.place
        pairs = ((place.tokens + 1) // 2) * (place.tokens // 2)
        return pairs * (place.dim // max(place.heads, 1))
