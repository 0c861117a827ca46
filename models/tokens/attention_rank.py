"""Rank patches by the attention that joint tokens pay them (PPT, arXiv 2209.08194, section 3.2;
EViTPose, arXiv 2503.00232).

Differs from PPT: the probabilities come from a side branch that recomputes only the query rows of
the joint tokens, so that the block's own attention stays one fused kernel; the surviving indices
are sorted, so that tokens stay in raster order; the count is a constant.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Score = Literal["sum", "max"]


def joint_attention_scores(query: Tensor, key: Tensor, score: Score = "sum") -> Tensor:
    """Return how much the special tokens look at each patch.

    Args:
        query: (B, heads, J, d) query rows of the J special tokens.
        key: (B, heads, J + N, d) keys of all tokens, special ones first.
        score: Sum over special tokens (PPT) or their maximum (closer to a union of top-n).

    Returns:
        (B, N) float32; probabilities are taken over all tokens before special columns are dropped.
    """
    special = query.shape[2]
    logits = (query.float() * query.shape[-1] ** -0.5) @ key.float().transpose(-1, -2)
    received = torch.softmax(logits, dim=-1)[..., special:].mean(dim=1)
    return received.sum(dim=1) if score == "sum" else received.amax(dim=1)


class JointAttentionRank(nn.Module):
    """Choose the `keep` best-ranked patches; a module so that exported nodes carry its scope."""

    def __init__(self, keep: int, score: Score = "sum") -> None:
        super().__init__()
        self.keep = keep
        self.score: Score = score

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """Return (B, keep) int64 patch indices, ascending, without repeats.

        Args:
            query: (B, heads, J, d) query rows of the special tokens.
            key: (B, heads, J + N, d) keys of all tokens.
        """
        scores = joint_attention_scores(query, key, self.score)
        best = torch.topk(scores, self.keep, dim=1, sorted=True).indices
        # Sorting by a second TopK keeps the graph to one well supported op; int32 is what
        # TensorRT sorts natively.
        order = torch.topk(best.to(torch.int32), self.keep, dim=1, largest=False, sorted=True)
        return order.values.to(torch.int64)


def take_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Return (B, K, C): the rows `index` (B, K) of `tokens` (B, N, C)."""
    if tokens.shape[0] == 1:  # one Gather instead of an expanded GatherElements
        return tokens.index_select(1, index[0])
    return torch.gather(tokens, 1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def put_tokens(grid: Tensor, index: Tensor, tokens: Tensor) -> Tensor:
    """Return `grid` (B, N, C) with rows `index` (B, K) replaced by `tokens` (B, K, C)."""
    where = index.unsqueeze(-1).expand(-1, -1, grid.shape[-1])
    return torch.scatter(grid, 1, where, tokens.to(grid.dtype))
