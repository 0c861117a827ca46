"""Merge similar tokens round by round (AIM, arXiv 2412.03248, stage 1).

Bipartite matching as in ToMe, by the tokens themselves instead of keys, with plain means instead of
means by size. A round merges at most half; as many rounds follow as K needs: a quarter of the
tokens takes two (N / 2, then N / 4), as in the paper.

Differs from the paper's code: it prunes behind the encoder and lets unmerged tokens come in the
order of their similarity; here they keep theirs. The sizes of the tokens are counted and handed on,
though this method does not weigh by them. Stage 2, inside a language model, is left out.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from prunus.models.tokens.merging import bipartite, hard_share, mixed, patch_sizes
from prunus.models.tokens.reducer import Place, Reduced, Side, TokenReducer, untouched
from prunus.models.tokens.scores import unit


class Aim(TokenReducer):
    """Rounds of bipartite matching on features.

    What comes out of a round: the first set without its merged ones, then the second set.
    """

    reads_this: ClassVar[bool] = False

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.counts = [place.tokens]
        while self.counts[-1] > place.keep:
            self.counts.append(max(place.keep, self.counts[-1] - self.counts[-1] // 2))

    def forward(self, x: Tensor, side: Side) -> Reduced:
        """Return special tokens + K means, (B, special + K, C)."""
        special = self.place.special
        if len(self.counts) == 1:
            return untouched(x, self.place)
        patches = x[:, special:]
        assign, mass = torch.empty(0), patch_sizes(side, self.place, x).unsqueeze(2)
        for done, count in enumerate(self.counts[1:]):
            merged = self.counts[done] - count
            share = hard_share(bipartite(unit(patches.detach()), merged), count)
            rows = share / share.sum(dim=2, keepdim=True)
            mass = (share * mass.transpose(1, 2)).sum(dim=2, keepdim=True)
            assign = rows @ assign if done else rows
            if count != self.place.keep:
                patches = rows.to(x.dtype) @ patches
        return mixed(x, assign, mass.squeeze(2), special)

    def macs(self) -> int:
        """Return the cost of comparing and merging in each round."""
        dim, total = self.place.dim, 0
        for before, after in zip(self.counts, self.counts[1:], strict=False):
            total += ((before + 1) // 2) * (before // 2) * dim
            total += after * before * self.place.tokens if before != self.place.tokens else 0
            total += after * before * dim if after != self.place.keep else 0
        return total + self.place.keep * self.place.tokens * dim * (len(self.counts) > 1)
