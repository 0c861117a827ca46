"""Merge what matters by pairs and the rest by clusters (Beyond Attentive Tokens, arXiv 2211.11315).

The class token's attention splits patches. Of the attentive ones, the most similar pairs are merged
(bipartite matching). The others are clustered by density peaks: rho = exp(-mean squared distance to
the nearest neighbours), delta = distance to the nearest patch of higher rho; centres are those of
the highest rho * delta, each patch joins its nearest centre, and a cluster is the mean weighted by
attention.

Differs from the paper: its text leaves numbers open, and no code of it was at hand. Distances are
divided by the square root of the channels (else every rho is 0), the nearest neighbours include the
patch itself, and the densest patch has the largest distance of all as its delta. Counts are
constants: clusters and merged pairs are shares of K.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prunus.models.tokens.merging import (
    bipartite,
    hard_share,
    mixed,
    patch_sizes,
    weighted,
)
from prunus.models.tokens.reducer import Place, Reduced, Side, TokenReducer, take_tokens, untouched
from prunus.models.tokens.scores import class_probability, unit
from prunus.models.tokens.selection import best, complement, require_share
from prunus.runtime.errors import UsageError


class Bat(TokenReducer):
    """Attentive pairs, then inattentive clusters.

    Args:
        place: Where it stands; a class token.
        clusters: Share of the K tokens that are clusters of inattentive patches; at least one is.
        pairs: Attentive pairs to merge, as a share of K.
        neighbours: Nearest neighbours that make up a density.
    """

    def __init__(
        self,
        place: Place,
        *,
        clusters: float = 0.2,
        pairs: float = 0.133,
        neighbours: int = 5,
    ) -> None:
        super().__init__(place)
        place.require_class_token("bat")
        require_share("bat", "clusters", clusters)
        require_share("bat", "pairs", pairs)
        if neighbours < 1:
            raise UsageError(f"Method 'bat' has {neighbours} neighbours; expected at least 1.")
        gone = place.tokens - place.keep
        if gone and place.keep < 2:
            raise UsageError(
                f"Method 'bat' at block {place.block} keeps {place.keep} token; expected at least "
                "2: attentive patches and a cluster of the others."
            )
        self.clusters = min(max(round(clusters * place.keep), 1), place.keep - 1)
        # All patches that go are one of a pair or lie in a cluster.
        kept = place.keep - self.clusters
        self.pairs = min(round(pairs * place.keep), gone, kept)
        self.commutes = "" if self.pairs else "permutation"
        self.attentive = kept + self.pairs
        self.neighbours = min(neighbours, place.tokens - self.attentive)

    def forward(self, x: Tensor, side: Side) -> Reduced:
        """Return special tokens, attentive ones (merged last), clusters in raster order."""
        place = self.place
        if place.keep == place.tokens:
            return untouched(x, place)
        score = class_probability(side.attention[place.block], place.special)
        features = x[:, place.special :].detach().float()
        attentive = best(score, self.attentive)
        rest = complement(attentive, place.tokens)
        pairs = bipartite(unit(take_tokens(features, attentive)), self.pairs)
        groups = place.keep - self.clusters + self._groups(take_tokens(features, rest))
        label = torch.scatter(torch.zeros_like(score, dtype=torch.int64), 1, attentive, pairs)
        label = torch.scatter(label, 1, rest, groups)
        # Pairs are means by size, clusters by attention, which is never quite 0.
        sizes = patch_sizes(side, place, x)
        attention = torch.gather(score, 1, rest).clamp_min(1e-12)
        weight = torch.scatter(sizes, 1, rest, attention)
        assign, mass = weighted(hard_share(label, place.keep), sizes, weight)
        return mixed(x, assign, mass, place.special)

    def _groups(self, features: Tensor) -> Tensor:
        """Return (B, M) int64: the cluster of each of the rest's patches (B, M, C)."""
        square = features.square().sum(dim=2)
        product = features @ features.transpose(1, 2)
        distance = (square.unsqueeze(2) + square.unsqueeze(1) - 2 * product).clamp_min(0)
        distance = distance / features.shape[2]  # squared
        near = torch.topk(distance, self.neighbours, dim=2, largest=False).values
        density = -near.mean(dim=2)  # the logarithm of rho: exp keeps its order
        distance = distance.sqrt()
        farthest = distance.amax(dim=(1, 2), keepdim=True)
        denser = density.unsqueeze(1) > density.unsqueeze(2)
        alone = torch.where(denser, distance, farthest).amin(dim=2)
        centres = best(density.exp() * alone, self.clusters)
        # A centre is its own, whatever lies on the same spot.
        own = centres.unsqueeze(2) == torch.arange(features.shape[1], device=centres.device)
        return (take_tokens(distance, centres) - own.float() * 1e6).argmin(dim=1)

    def macs(self) -> int:
        """Return the cost of attention, comparing, distances, and of the merge."""
        place = self.place
        if place.keep == place.tokens:
            return 0
        row = (place.special + place.tokens) * place.dim
        compared = (self.attentive + 1) // 2 * (self.attentive // 2) if self.pairs else 0
        clustered = (place.tokens - self.attentive) ** 2
        return row + (compared + clustered + place.keep * place.tokens) * place.dim
