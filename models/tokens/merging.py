"""Tokens that become one: which patch goes where, and the matrix that follows from it.

A merging method says how much of each patch goes to each of the K tokens (columns sum to 1); the
rest is the same for all: rows weighted by size, so that a token is the mean of the patches that it
stands for, and one matrix product. Reducing scatters are not portable, so a hard merge is one label
a patch, an Equal, and that product.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prunus.models.tokens.reducer import Place, Reduced, Side, TokenReducer, untouched
from prunus.runtime.errors import UsageError


class MergingReducer(TokenReducer):
    """Base of the methods that merge; a subclass says which patch goes where."""

    def share(self, patches: Tensor, side: Side) -> Tensor:
        """Return (B, K, N): how much of each patch goes to each token; columns sum to 1."""
        raise NotImplementedError

    def share_macs(self) -> int:
        """Return the multiply-accumulates of `share`."""
        return 0

    def macs(self) -> int:
        """Return the multiply-accumulates of the shares and of the product with the tokens."""
        place = self.place
        if place.keep == place.tokens:
            return 0
        return self.share_macs() + place.keep * place.tokens * place.dim

    def forward(self, x: Tensor, side: Side) -> Reduced:
        """Return special tokens + K means, (B, special + K, C); `x` itself where K is N."""
        if self.place.keep == self.place.tokens:
            return untouched(x, self.place)
        share = self.share(x[:, self.place.special :], side)
        assign, mass = weighted(share, patch_sizes(side, self.place, x))
        return mixed(x, assign, mass, self.place.special)


def mixed(x: Tensor, assign: Tensor, mass: Tensor, special: int) -> Reduced:
    """Return special tokens + `assign` (B, K, N) times the patches of `x` (B, special + N, C)."""
    y = assign.to(x.dtype) @ x[:, special:]
    return Reduced(torch.cat((x[:, :special], y), dim=1), None, assign, mass)


def weighted(share: Tensor, size: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return (assign (B, K, N) with rows summing to 1, mass (B, K)) of shares and sizes.

    Args:
        share: (B, K, N): how much of each patch goes to each token; columns sum to 1.
        size: (B, N): patches that each token stands for; their sum is the sum of the masses.
        weight: (B, N): what the rows weigh patches by; None: their size.
    """
    spread = share * size.unsqueeze(1)
    mass = spread.sum(dim=2)
    if weight is None:
        return spread / mass.unsqueeze(2), mass
    rows = share * weight.unsqueeze(1)
    return rows / rows.sum(dim=2, keepdim=True), mass


def patch_sizes(side: Side, place: Place, x: Tensor) -> Tensor:
    """Return (B, N) float32: patches that each token stands for."""
    if side.size is None:
        return torch.ones(x.shape[0], place.tokens, device=x.device)
    return side.size[:, place.special :]


def hard_share(label: Tensor, k: int) -> Tensor:
    """Return (B, k, N) float32 with one 1 a column: in the row `label` (B, N)."""
    return (torch.arange(k, device=label.device).view(1, k, 1) == label.unsqueeze(1)).float()


def bipartite(metric: Tensor, merged: int) -> Tensor:
    """Return (B, N) int64 labels 0..N - merged - 1 of bipartite soft matching.

    Tokens are split alternately; each of the first set finds its most similar in the second, and
    the `merged` most similar pairs share a label (ToMe, arXiv 2210.09461, section 3). Labels count
    the first set without its merged ones, then the second set.

    Args:
        metric: (B, N, d): what tokens are compared by, each of length 1.
        merged: Tokens that go, at most N // 2.
    """
    first, second = metric[:, 0::2], metric[:, 1::2]
    stay = first.shape[1] - merged
    places = torch.arange(first.shape[1], device=metric.device).expand(metric.shape[0], -1)
    own = stay + torch.arange(second.shape[1], device=metric.device).expand(metric.shape[0], -1)
    if merged:
        near = torch.topk(first @ second.transpose(1, 2), 1, dim=2)  # value and place of the best
        going = torch.topk(near.values[..., 0], merged, dim=1).indices
        leaving = torch.scatter(torch.zeros_like(places), 1, going, torch.ones_like(going))
        rank = torch.cumsum(1 - leaving, dim=1) - 1  # among those that stay
        places = torch.where(leaving > 0, stay + near.indices[..., 0], rank)
    # First set, second set, back to alternating ones by a constant index.
    count = metric.shape[1]
    order = [k // 2 if k % 2 == 0 else first.shape[1] + k // 2 for k in range(count)]
    labels = torch.cat((places, own), dim=1)
    return labels.index_select(1, torch.tensor(order, device=metric.device))


def most_merged(place: Place, method: str, most: int) -> int:
    """Return N - K; raises UsageError where that is more than `most` tokens."""
    merged = place.tokens - place.keep
    if merged > most:
        raise UsageError(
            f"Method '{method}' at block {place.block} merges at most {most} of {place.tokens} "
            f"tokens in one cut; got {place.keep} to keep.",
            f"Keep at least {place.tokens - most}, or merge in several cuts.",
        )
    return merged
