"""Keep tokens that lie far from one another: greedy k-center (ToDRE, arXiv 2505.18757, stage 1).

One token after the other: the next is the one whose nearest kept token is farthest, by 1 - cosine.

Differs from the paper: its code was not at hand; the first token is the one of the highest class
attention, or, where there is no class token, the one whose nearest other is farthest (DivPrune,
arXiv 2503.02175). The chain of K steps is written out in the graph, so K is at most 64. Stage 2,
inside a language model, is left out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prunus.models.tokens.reducer import Place, Side, take_tokens
from prunus.models.tokens.scores import class_probability, unit
from prunus.models.tokens.selection import (
    Merge,
    SelectingReducer,
    ascending,
    best,
    require_few_steps,
)

_NODES = 10  # of one step, counted in a graph


class ToDRE(SelectingReducer):
    """Greedy k-center by cosine distance."""

    def __init__(self, place: Place, *, merge: Merge = "drop", tau: float = 0.1) -> None:
        super().__init__(place, merge=merge, tau=tau)
        self.refuse_fuse("todre")
        if place.keep < place.tokens:
            require_few_steps("todre", place, self.chosen, _NODES)

    def score(self, patches: Tensor, side: Side) -> Tensor:
        """Return (B, N): how fit each patch is to be the first."""
        if self.place.class_token:
            return class_probability(side.attention[self.place.block], self.place.special)
        features = unit(patches.detach())
        near = torch.topk(features @ features.transpose(1, 2), 2, dim=2).values[..., 1]
        return 1 - near

    def select(self, score: Tensor, patches: Tensor, side: Side) -> Tensor:
        """Return the first, then each time the farthest from all before it."""
        features = unit(patches.detach())
        similarity = features @ features.transpose(1, 2)
        chosen = [best(score, 1)]
        taken = torch.arange(self.place.tokens, device=score.device)
        distance = torch.full_like(score, 4.0)
        for _ in range(self.chosen - 1):
            near = 1 - take_tokens(similarity, chosen[-1]).squeeze(1)
            # What is taken falls below every distance, also where tokens lie on the same spot.
            near = torch.where(chosen[-1] == taken, -1.0, near.clamp_min(0))
            distance = torch.minimum(distance, near)
            chosen.append(distance.argmax(dim=1, keepdim=True))
        return ascending(torch.cat(chosen, dim=1))

    def score_macs(self) -> int:
        """Return the cost of the first pick and of all similarities."""
        n, dim = self.place.tokens, self.place.dim
        first = (self.place.special + n) * dim if self.place.class_token else n * n * dim
        return first + n * n * dim
