"""Keep a few pivots and what resembles them least (DART, arXiv 2502.11494).

Pivots are the patches whose keys are longest (L1). One pivot after the other takes the patches that
resemble it least, by cosine, among those that nobody took yet: K in all.

Differs from the paper: it prunes inside a language model, where half of the pivots are words, which
an encoder has not; it takes floor((K / pivots)) patches a pivot beside the pivots themselves. Here
pivots count among the K, the first ones take the remainder, and pivots go in the order of their
length (the code goes through a set).
"""

from __future__ import annotations

import torch
from torch import Tensor

from prunus.models.tokens.reducer import Place, Side, take_tokens
from prunus.models.tokens.scores import unit
from prunus.models.tokens.selection import (
    Merge,
    SelectingReducer,
    ascending,
    mask,
    require_few_steps,
)
from prunus.runtime.errors import UsageError

_NODES = 6  # of one pivot, counted in a graph


class Dart(SelectingReducer):
    """Pivots, then those least like them.

    Args:
        place: Where it stands.
        pivots: Number of pivots; K where that is fewer.
        merge: See `SelectingReducer`.
        tau: See `SelectingReducer`.
    """

    def __init__(
        self, place: Place, *, pivots: int = 8, merge: Merge = "drop", tau: float = 0.1
    ) -> None:
        super().__init__(place, merge=merge, tau=tau)
        self.refuse_fuse("dart")
        if pivots < 1:
            raise UsageError(f"Method 'dart' has {pivots} pivots; expected at least 1.")
        self.pivots = min(pivots, self.chosen)
        require_few_steps("dart", place, self.pivots, _NODES)
        each, more = divmod(self.chosen - self.pivots, self.pivots)
        self.takes = [each + (pivot < more) for pivot in range(self.pivots)]

    def score(self, patches: Tensor, side: Side) -> Tensor:
        """Return (B, N): the L1 length of keys, all heads together."""
        key = side.attention[self.place.block].key[:, :, self.place.special :]
        return key.detach().float().abs().sum(dim=(1, 3))

    def select(self, score: Tensor, patches: Tensor, side: Side) -> Tensor:
        """Return the pivots and what each of them took."""
        features = unit(patches.detach())
        pivots = torch.topk(score, self.pivots, dim=1, sorted=True).indices
        unlike = -take_tokens(features, pivots) @ features.transpose(1, 2)  # (B, pivots, N)
        taken = mask(pivots, self.place.tokens)
        chosen = [pivots]
        for pivot, count in enumerate(self.takes):
            if count:
                free = unlike[:, pivot] - 4.0 * taken
                chosen.append(torch.topk(free, count, dim=1).indices)
                taken = taken + mask(chosen[-1], self.place.tokens)
        return ascending(torch.cat(chosen, dim=1))

    def score_macs(self) -> int:
        """Return the cost of comparing pivots with all."""
        return self.pivots * self.place.tokens * self.place.dim
