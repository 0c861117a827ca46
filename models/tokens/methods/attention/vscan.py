"""Keep the best of each window and the best of all, merge the rest (VScan, arXiv 2505.22654, stage
1).

Half of the budget is shared equally by the windows of the grid, by the class token's attention in a
shallow block; the other half goes to the best of what is left by this block; every dropped patch
joins the most similar kept one, plain means.

Differs from the paper's code: where half of the budget is no multiple of the number of windows, the
global half is larger, so that K stays K (the code keeps fewer). The code cuts a 24 x 24 grid into
4 x 4 windows behind the encoder and merges projected features; here the tokens themselves are
merged where the cut is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prunus.models.tokens.reducer import Place, Side
from prunus.models.tokens.scores import class_probability
from prunus.models.tokens.selection import Merge, SelectingReducer, best, mask
from prunus.runtime.errors import UsageError

_WINDOWS = 4  # a side, as in the paper


class VScan(SelectingReducer):
    """Local scan in a shallow block, global scan in this one.

    Args:
        place: Where it stands; a grid and a class token.
        windows: Windows a side; None: 4, or the next fewer that divide rows and columns.
        shallow: Block of the local scan; None: half way to this one.
        merge: See `SelectingReducer`.
        tau: See `SelectingReducer`.
    """

    windows: Tensor
    raster: Tensor

    def __init__(
        self,
        place: Place,
        *,
        windows: int | None = None,
        shallow: int | None = None,
        merge: Merge = "nearest",
        tau: float = 0.1,
    ) -> None:
        super().__init__(place, merge=merge, tau=tau)
        self.commutes = "flip"
        place.require_class_token("vscan")
        rows, columns = place.require_grid("vscan")
        if windows is not None and (windows < 1 or rows % windows or columns % windows):
            raise UsageError(
                f"Method 'vscan' at block {place.block} cannot cut a grid of {rows} x {columns} "
                f"into {windows} windows a side.",
                "Choose a number that divides both, or leave it out.",
            )
        down = windows or next(w for w in range(_WINDOWS, 0, -1) if rows % w == 0)
        across = windows or next(w for w in range(_WINDOWS, 0, -1) if columns % w == 0)
        self.each = self.chosen // 2 // (down * across)
        self.shallow = place.earlier("vscan", "shallow", shallow)
        self.reads_attention = (self.shallow,) if self.each else ()
        # (windows, patches of one): a constant permutation of the patches, and the way back.
        index = torch.arange(place.tokens).view(down, rows // down, across, columns // across)
        index = index.permute(0, 2, 1, 3).reshape(down * across, -1)
        self.register_buffer("windows", index, persistent=False)
        self.register_buffer("raster", torch.argsort(index.flatten()), persistent=False)

    def score(self, patches: Tensor, side: Side) -> Tensor:
        """Return (B, N): probabilities of this block's class token."""
        return class_probability(side.attention[self.place.block], self.place.special)

    def select(self, score: Tensor, patches: Tensor, side: Side) -> Tensor:
        """Return the best of each window, then the best of the rest."""
        if not self.each:
            return best(score, self.chosen)
        count, length = self.windows.shape
        local = class_probability(side.attention[self.shallow], self.place.special)
        local = local.index_select(1, self.windows.flatten()).view(-1, length)
        chosen = mask(torch.topk(local, self.each, dim=1).indices, length)
        raster = chosen.view(-1, count * length).index_select(1, self.raster)
        return best(score + 4.0 * raster, self.chosen)

    def score_macs(self) -> int:
        """Return the cost of the class token's row in one or two blocks."""
        row = (self.place.special + self.place.tokens) * self.place.dim
        return row * (2 if self.each else 1)
