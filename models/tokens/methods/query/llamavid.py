"""Two tokens: what a task asks for, and what is there (LLaMA-VID, arXiv 2311.17043, section 3).

    context = mean over queries q of softmax over patches(q . x / sqrt C) x
    content = mean of the patches; with K above 2, of each of K - 1 equal cells of the grid

Differs from the paper: queries come from a prompt there; here `queries` task vectors are stored and
learned, with the key projection folded into them. Its projections into a language model are left
out: tokens stay in the encoder's space.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunus.models.tokens.cells import membership
from prunus.models.tokens.methods.query.pooling import PoolingReducer
from prunus.models.tokens.reducer import Place
from prunus.runtime.errors import UsageError


class LlamaVid(PoolingReducer):
    """One context token, then K - 1 content tokens.

    Args:
        place: Where it stands; K is 2, or 1 more than a number of equal cells.
        queries: Task vectors.
    """

    content: Tensor

    def __init__(self, place: Place, *, queries: int = 1) -> None:
        super().__init__(place)
        dim = place.require_dim("llamavid")
        if queries < 1:
            raise UsageError(
                f"Option 'queries' of method 'llamavid' is {queries}; expected 1 or more."
            )
        if place.keep in (2, place.tokens):  # all of them: nothing to do
            members = torch.ones(1, place.tokens)
        else:
            cell = place.cell("llamavid", extra=1)
            members = membership(place.require_grid("llamavid"), cell)
        self.commutes = "permutation" if len(members) == 1 else "flip"
        mean = members / members.sum(dim=1, keepdim=True)
        self.register_buffer("content", mean, persistent=False)
        self.task = nn.Parameter(torch.randn(queries, dim))

    def weights(self, patches: Tensor) -> Tensor:
        """Return W (B, K, N)."""
        logits = (self.task * self.task.shape[1] ** -0.5) @ patches.transpose(1, 2)
        context = torch.softmax(logits.float(), dim=2).mean(dim=1, keepdim=True)
        return torch.cat((context, self.content.expand(patches.shape[0], -1, -1)), dim=1)

    def scorer_macs(self) -> int:
        """Return the cost of the queries."""
        return self.task.shape[0] * self.place.tokens * self.place.dim
