"""Sample patches by how much they matter (ATS, arXiv 2111.15667, section 3.2): a static baseline.

Scores are the class token's attention times the length of the value. Sorted ascending, their
cumulative sum is scaled to 0..1; K equally spaced levels, from its smallest positive value to 1,
each pick the patch whose value is nearest (inverse transform sampling).

Differs from the paper: several levels may pick the same patch. The paper drops the duplicates, so
that the count depends on the picture and batches are padded; here the slots of duplicates go to the
patches of the highest score that were not picked, so that K stays K.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prunus.models.tokens.reducer import Place, Side
from prunus.models.tokens.scores import class_value
from prunus.models.tokens.selection import Merge, SelectingReducer, best


class AdaptiveSampling(SelectingReducer):
    """Inverse transform sampling of the scores, then the best of the rest."""

    steps: Tensor

    def __init__(self, place: Place, *, merge: Merge = "drop", tau: float = 0.1) -> None:
        super().__init__(place, merge=merge, tau=tau)
        place.require_class_token("ats")
        steps = torch.arange(self.chosen) / max(self.chosen - 1, 1)
        self.register_buffer("steps", steps if self.chosen > 1 else steps + 1, persistent=False)

    def score(self, patches: Tensor, side: Side) -> Tensor:
        """Return (B, N) summing to 1: attention times the length of the value."""
        return class_value(side.attention[self.place.block], self.place.special)

    def select(self, score: Tensor, patches: Tensor, side: Side) -> Tensor:
        """Return what the levels pick, then the best of the rest."""
        n = self.place.tokens
        order = torch.topk(score, n, dim=1, largest=False, sorted=True)
        total = torch.cumsum(order.values, dim=1)
        low, high = total[:, :1], total[:, -1:]
        level = (total - low) / (high - low).clamp_min(1e-12)
        start = torch.where(level > 0, level, 2.0).amin(dim=1, keepdim=True).clamp_max(1.0)
        wanted = start + (1 - start) * self.steps  # (B, K)
        off = (wanted.unsqueeze(2) - level.unsqueeze(1)).abs()  # (B, K, N)
        nearest = torch.topk(off, 1, dim=2, largest=False).indices  # (B, K, 1)
        picked = (nearest == torch.arange(n, device=score.device)).float().amax(dim=1)
        # Back from the sorted order: `order.indices` is a permutation, it repeats nothing.
        hit = torch.scatter(torch.zeros_like(score), 1, order.indices, picked)
        return best(score + 4.0 * hit, self.chosen)

    def score_macs(self) -> int:
        """Return the cost of the class token's row."""
        return (self.place.special + self.place.tokens) * self.place.dim
