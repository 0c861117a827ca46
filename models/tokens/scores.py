"""Rank patches by the attention that joint tokens pay them (PPT, arXiv 2209.08194, section 3.2;
EViTPose, arXiv 2503.00232).

Differs from PPT: the probabilities come from a side branch that recomputes only the query rows of
the joint tokens, so that the block's own attention stays one fused kernel; the surviving indices
are sorted, so that tokens stay in raster order; the count is a constant.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from prunus.models.tokens.reducer import Reduced, ReduceSpec, TokenReducer, take_tokens

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
    # Indices carry no gradient, so neither need the scores; autocast would round the product.
    query, key = query.detach().float(), key.detach().float()
    with _full_precision(query.device.type):
        logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    received = torch.softmax(logits, dim=-1)[..., special:].mean(dim=1)
    return received.sum(dim=1) if score == "sum" else received.amax(dim=1)


def _full_precision(device: str) -> contextlib.AbstractContextManager[object]:
    # Entered only where autocast is on, as it would leave a marker in an exported graph.
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()


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


class JointTokenReducer(TokenReducer):
    """Drop all but the patches that the joint tokens look at most; joint tokens stay in front.

    Reads the side tensors ``q_special`` (B, heads, J, d) and ``k`` (B, heads, J + N, d).
    """

    def __init__(self, joints: int, patches: int, keep: int, score: Score = "sum") -> None:
        needs = frozenset({"q_special", "k"})
        super().__init__(ReduceSpec(patches, keep, joints, needs=needs, trained=True))
        self.rank = JointAttentionRank(keep, score)

    def forward(self, x: Tensor, side: Mapping[str, Tensor]) -> Reduced:
        """Return joint tokens + kept patches (B, J + K, C), and the indices kept."""
        special = self.spec.special
        kept = self.rank(side["q_special"], side["k"])
        patches = take_tokens(x[:, special:], kept)
        return Reduced(torch.cat((x[:, :special], patches), dim=1), kept)
