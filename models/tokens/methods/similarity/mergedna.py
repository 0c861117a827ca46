"""Merge neighbours of a sequence within short windows (after MergeDNA, arXiv 2511.14806): frames of
sound.

The sequence is cut into windows; in each, bipartite matching (ToMe, arXiv 2210.09461) merges
equally many pairs, means by size. Tokens stay in the order of the first patch that they stand for,
so what comes out is a sequence again, and cuts may follow one another.

Differs from the paper: there the merge is learned with the network, on letters of a genome, and no
code of it was at hand; here tokens are compared as they are.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from prunus.models.tokens.merging import bipartite, hard_share, patch_sizes, weighted
from prunus.models.tokens.reducer import Place, Reduced, Side, TokenReducer, untouched
from prunus.models.tokens.scores import unit
from prunus.runtime.errors import UsageError


class WindowedMerge(TokenReducer):
    """Bipartite matching within windows of a sequence.

    Args:
        place: Where it stands.
        window: Tokens of a window.
    """

    reads_this: ClassVar[bool] = False

    def __init__(self, place: Place, *, window: int = 4) -> None:
        super().__init__(place)
        gone = place.tokens - place.keep
        if window < 2 or place.tokens % window:
            raise UsageError(
                f"Method 'mergedna' at block {place.block} cannot cut {place.tokens} tokens into "
                f"windows of {window}.",
                "Give a window of at least 2 that divides them.",
            )
        self.windows, self.window = place.tokens // window, window
        if gone % self.windows or gone // self.windows > window // 2:
            counts = [place.tokens - r * self.windows for r in range(1, window // 2 + 1)]
            raise UsageError(
                f"Method 'mergedna' at block {place.block} merges equally many tokens, at most "
                f"half, in each of {self.windows} windows; {place.keep} of {place.tokens} cannot "
                "be kept.",
                f"Keep one of {', '.join(map(str, counts))}, or give another window.",
            )
        self.merged = gone // self.windows

    @property
    def grid(self) -> tuple[int, int] | None:
        """A row of K, where a row came in."""
        if self.place.grid is None or self.place.grid[0] != 1:
            return super().grid
        return (1, self.place.keep)

    def forward(self, x: Tensor, side: Side) -> Reduced:
        """Return special tokens + K means in order, (B, special + K, C)."""
        place, batch = self.place, x.shape[0]
        if not self.merged:
            return untouched(x, place)
        patches = x[:, place.special :].reshape(batch * self.windows, self.window, -1)
        each = self.window - self.merged
        share = hard_share(bipartite(unit(patches.detach()), self.merged), each)
        # Rows by the first patch that they stand for; columns of the share tell it.
        place_in_window = torch.arange(self.window, device=x.device, dtype=share.dtype)
        first = torch.where(share > 0, place_in_window, float(self.window)).amin(dim=2)
        order = torch.topk(first, each, dim=1, largest=False, sorted=True).indices
        share = torch.gather(share, 1, order.unsqueeze(2).expand(-1, -1, self.window))
        sizes = patch_sizes(side, place, x).reshape(batch * self.windows, self.window)
        rows, mass = weighted(share, sizes)
        y = (rows.to(x.dtype) @ patches).reshape(batch, place.keep, -1)
        # The windows lie on the diagonal of the whole matrix.
        blocks = rows.view(batch, self.windows, each, 1, self.window)
        eye = torch.eye(self.windows, device=x.device).view(1, self.windows, 1, self.windows, 1)
        assign = (blocks * eye).reshape(batch, place.keep, place.tokens)
        whole = torch.cat((x[:, : place.special], y), dim=1)
        return Reduced(whole, None, assign, mass.view(batch, place.keep))

    def macs(self) -> int:
        """Return the cost of comparing and merging in all windows."""
        if not self.merged:
            return 0
        pairs = ((self.window + 1) // 2) * (self.window // 2)
        merge = (self.window - self.merged) * self.window
        return self.windows * (pairs + merge) * self.place.dim
