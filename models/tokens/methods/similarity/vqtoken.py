"""Replace tokens by the means of K clusters (VQToken, arXiv 2503.16980).

K-means on tokens of length 1 (cosine); a cluster becomes the mean of its tokens.

Differs from the paper's code: it starts at random (k-means++) and iterates until nothing changes,
so that neither its result nor its time is constant. Here the first centres are K evenly spaced
tokens, and a constant number of steps is written out in the graph. A cluster that lost all its
tokens shares the token that is nearest to it, so that there are always K. The small network that
carries the places of the tokens is left out.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from prunus.models.tokens.constant import evenly
from prunus.models.tokens.merging import MergingReducer, hard_share
from prunus.models.tokens.reducer import Place, Side, one_hot
from prunus.models.tokens.scores import unit
from prunus.models.tokens.selection import require_few_steps
from prunus.runtime.errors import UsageError

_NODES = 13  # of one step, counted in a graph


class VQToken(MergingReducer):
    """K-means in a constant number of steps.

    Args:
        place: Where it stands.
        steps: Times that the centres are moved.
    """

    reads_this: ClassVar[bool] = False

    def __init__(self, place: Place, *, steps: int = 3) -> None:
        super().__init__(place)
        require_few_steps("vqtoken", place, steps, _NODES)
        if steps < 0:
            raise UsageError(f"Method 'vqtoken' has {steps} steps; expected 0 or more.")
        self.steps = steps

    def share(self, patches: Tensor, side: Side) -> Tensor:
        """Return (B, K, N): one 1 a column, or parts where a cluster would be empty."""
        place = self.place
        features = unit(patches.detach())
        first = evenly(place.tokens, place.keep)
        centres = features.index_select(1, first.to(features.device))
        for _ in range(self.steps):
            share = hard_share((centres @ features.transpose(1, 2)).argmax(dim=1), place.keep)
            # Of no tokens the mean is 0: the centre stays where it is.
            centres = unit(share @ features + 1e-6 * centres)
        similarity = centres @ features.transpose(1, 2)
        share = hard_share(similarity.argmax(dim=1), place.keep)
        empty = (share.sum(dim=2, keepdim=True) == 0).float()
        share = share + empty * one_hot(similarity.argmax(dim=2), place.tokens)
        return share / share.sum(dim=1, keepdim=True)

    def share_macs(self) -> int:
        """Return the cost of comparing in each step and of moving the centres."""
        place = self.place
        return (2 * self.steps + 1) * place.keep * place.tokens * place.dim
