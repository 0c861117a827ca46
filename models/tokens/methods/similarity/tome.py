"""Merge similar tokens pairwise (ToMe, arXiv 2210.09461, section 3).

Patches are split alternately; each of the first set finds its most similar in the second; the N - K
most similar pairs become one token each, a mean weighted by size. At most half of the tokens can go
in one cut. Off the shelf the following blocks add log(size) to their logits (proportional
attention), which `prune` does.

Differs from the paper's code: special tokens are set aside, not only the class token; the merge is
a matrix product with a one-hot assignment, as reducing scatters are not portable.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prunus.models.tokens.reducer import Place, Reduced, Side, TokenReducer, one_hot
from prunus.models.tokens.scores import mean_key
from prunus.models.tokens.selection import ascending, mask, patch_sizes, weighted
from prunus.runtime.errors import UsageError


class ToMe(TokenReducer):
    """Bipartite soft matching on the mean keys of the heads."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        most = place.tokens // 2
        if place.tokens - place.keep > most:
            raise UsageError(
                f"Method 'tome' at block {place.block} merges at most half of its tokens in one "
                f"cut; got {place.keep} of {place.tokens}.",
                f"Keep at least {place.tokens - most}, or merge in several cuts.",
            )

    def features(self, x: Tensor, side: Side) -> Tensor:
        """Return (B, N, d) of length 1: what tokens are compared by."""
        return mean_key(side.attention[self.place.block], self.place.special)

    def forward(self, x: Tensor, side: Side) -> Reduced:
        """Return special tokens, then first set without its merged ones, then second set."""
        special, n = self.place.special, self.place.tokens
        merged = n - self.place.keep
        metric = self.features(x, side).detach()
        first, second = metric[:, 0::2], metric[:, 1::2]
        near = torch.topk(first @ second.transpose(1, 2), 1, dim=2)  # value and place of the best
        similarity, partner = near.values[..., 0], near.indices[..., 0]
        going = torch.topk(similarity, merged, dim=1).indices if merged else None
        stay_count = first.shape[1] - merged
        leaving = mask(going, first.shape[1]) if going is not None else torch.zeros_like(similarity)
        # Those that stay, in order: the smallest of index + N * leaving.
        order = torch.arange(first.shape[1], device=x.device) + n * leaving
        stay = torch.topk(-order, stay_count, dim=1, sorted=True).indices if stay_count else None
        joins = one_hot(partner, second.shape[1]).transpose(1, 2) * leaving.unsqueeze(1)
        share = self._share(None if stay is None else ascending(stay), joins, n)
        assign, mass = weighted(share, patch_sizes(side, self.place, x))
        y = assign.to(x.dtype) @ x[:, special:]
        return Reduced(torch.cat((x[:, :special], y), dim=1), None, assign, mass)

    def _share(self, stay: Tensor | None, joins: Tensor, n: int) -> Tensor:
        """Return (B, K, N) with one 1 a column, from places in the sets to places in the row."""
        batch, second, first = joins.shape
        own = torch.eye(second, device=joins.device).expand(batch, -1, -1)
        # Columns: first set then second set; back to alternating ones by a constant index.
        places = [k // 2 if k % 2 == 0 else first + k // 2 for k in range(n)]
        order = torch.tensor(places, device=joins.device)
        rows = torch.cat((joins, own), dim=2).index_select(2, order)
        if stay is None:
            return rows
        return torch.cat((one_hot(2 * stay, n), rows), dim=1)

    def macs(self) -> int:
        """Return the cost of comparing and of the merge."""
        place = self.place
        pairs = ((place.tokens + 1) // 2) * (place.tokens // 2)
        compare = pairs * (place.dim // max(place.heads, 1))
        return compare + place.keep * place.tokens * place.dim
