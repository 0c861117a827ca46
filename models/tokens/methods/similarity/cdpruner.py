"""Keep a set both relevant and diverse: greedy conditional DPP (CDPruner, arXiv 2506.10967).

With r the relevance of patches, scaled to 0..1 by picture, and S their cosine similarity, the
kernel is r_i S_ij r_j; its determinant over a set is large when the set is relevant and diverse.
The greedy search takes the patch of the largest remaining diagonal and removes its direction from
all others (Chen et al., arXiv 1709.05135).

Differs from the paper: relevance is the attention that patches receive, since an encoder sees no
question. With `theta` below 1 it is exp(theta / (2 (1 - theta)) r), as the paper weighs it. The
chain of K steps is written out in the graph, so K is at most 64; a diagonal is never below 1e-6, so
that sets larger than the rank of the kernel stay defined.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prunus.models.tokens.reducer import Place, Side, take_tokens
from prunus.models.tokens.scores import importance, importance_macs, unit
from prunus.models.tokens.selection import Merge, SelectingReducer, ascending, require_few_steps
from prunus.runtime.errors import UsageError

_NODES = 22  # of one step, counted in a graph


class CDPruner(SelectingReducer):
    """Greedy maximum of a conditional determinantal point process.

    Args:
        place: Where it stands.
        theta: Weight of relevance, above 0 to below 1; 1: the plain product.
        merge: See `SelectingReducer`.
        tau: See `SelectingReducer`.
    """

    def __init__(
        self, place: Place, *, theta: float = 1.0, merge: Merge = "drop", tau: float = 0.1
    ) -> None:
        super().__init__(place, merge=merge, tau=tau)
        self.refuse_fuse("cdpruner")
        if not 0 <= theta <= 1:
            raise UsageError(f"Option 'theta' of method 'cdpruner' is {theta}; expected 0 to 1.")
        if place.keep < place.tokens:
            require_few_steps("cdpruner", place, self.chosen, _NODES)
        self.theta = theta

    def score(self, patches: Tensor, side: Side) -> Tensor:
        """Return (B, N): relevance, 0 to 1 in each picture, or its exponential."""
        raw = importance(side.attention[self.place.block], self.place)
        low, high = raw.amin(dim=1, keepdim=True), raw.amax(dim=1, keepdim=True)
        relevance = (raw - low + 1e-6) / (high - low + 1e-6)
        if self.theta == 1:
            return relevance
        return torch.exp(self.theta / (2 * (1 - self.theta)) * relevance)

    def select(self, score: Tensor, patches: Tensor, side: Side) -> Tensor:
        """Return the greedy set."""
        features = unit(patches.detach())
        similarity = features @ features.transpose(1, 2)
        kernel = score.unsqueeze(2) * similarity * score.unsqueeze(1)
        places = torch.arange(self.place.tokens, device=score.device)
        left = score.square()  # the diagonal: similarity with itself is 1
        chosen: list[Tensor] = []
        gone = torch.empty(0)
        for step in range(self.chosen):
            pick = left.argmax(dim=1, keepdim=True)
            chosen.append(pick)
            if step == self.chosen - 1:
                break
            row = take_tokens(kernel, pick)  # (B, 1, N)
            if step:
                own = torch.gather(gone, 2, pick.unsqueeze(1).expand(-1, step, -1))
                row = row - own.transpose(1, 2) @ gone
            scale = torch.gather(left, 1, pick).clamp_min(1e-6).rsqrt()
            row = row * scale.unsqueeze(2)
            gone = torch.cat((gone, row), dim=1) if step else row
            left = torch.where(places == pick, -1e6, left - row.squeeze(1).square())
        return ascending(torch.cat(chosen, dim=1))

    def score_macs(self) -> int:
        """Return the cost of relevance, similarity, and of removing directions."""
        n = self.place.tokens
        steps = max(self.chosen - 1, 0)
        removed = n * steps * (steps - 1) // 2
        return importance_macs(self.place) + n * n * self.place.dim + removed
