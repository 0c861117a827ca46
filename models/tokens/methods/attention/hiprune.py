"""Keep anchors with their neighbours, then what a deep block finds (HiPrune, arXiv 2508.00553).

Three steps, for a budget of K: (1) round(alpha K / 5) anchors, the patches that receive most in an
"object" block half way; (2) their four neighbours on the grid; (3) the rest of the budget by what
patches receive in this block. Needs no class token.

Differs from the paper's code: neighbours end at the rim of the grid. The code adds +-1 and +-width
to the flat index and clamps it, so that neighbours wrap round the ends of rows, and the first or
last patch joins whenever an anchor lies in the first or last row; `literal` does the same. There
is at least one anchor, and never more than K / 5, so that the budget holds them with their
neighbours. The paper prunes behind the encoder and takes its object block at 9 of 24; here it is
half way to the cut.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from prunus.models.tokens.reducer import Place, Side
from prunus.models.tokens.scores import column_mean
from prunus.models.tokens.selection import (
    Merge,
    SelectingReducer,
    best,
    mask,
    require_share,
)


class HiPrune(SelectingReducer):
    """Anchors of a middle block, their neighbours, then the best of this block.

    Args:
        place: Where it stands; a grid.
        alpha: Share of the budget that goes to anchors and neighbours.
        object_block: Block that finds the anchors; None: half way to this one.
        literal: Neighbours by the flat index, as the paper's code has it.
        merge: See `SelectingReducer`.
        tau: See `SelectingReducer`.
    """

    def __init__(
        self,
        place: Place,
        *,
        alpha: float = 0.1,
        object_block: int | None = None,
        literal: bool = False,
        merge: Merge = "drop",
        tau: float = 0.1,
    ) -> None:
        super().__init__(place, merge=merge, tau=tau)
        self.shape = place.require_grid("hiprune")
        require_share("hiprune", "alpha", alpha)
        self.anchors = min(max(round(alpha * self.chosen / 5), int(alpha > 0)), self.chosen // 5)
        self.object_block = place.earlier("hiprune", "object_block", object_block)
        self.reads_attention = (self.object_block,) if self.anchors else ()
        self.literal = literal
        if self.anchors:
            self.commutes = "" if literal else "flip"

    def score(self, patches: Tensor, side: Side) -> Tensor:
        """Return (B, N): what patches receive in this block."""
        return column_mean(side.attention[self.place.block], self.place.special)

    def select(self, score: Tensor, patches: Tensor, side: Side) -> Tensor:
        """Return the anchors with their neighbours, then the best of the rest."""
        if not self.anchors:
            return best(score, self.chosen)
        found = column_mean(side.attention[self.object_block], self.place.special)
        anchors = mask(torch.topk(found, self.anchors, dim=1).indices, self.place.tokens)
        first = _flat(anchors, self.shape[1]) if self.literal else _cross(anchors, self.shape)
        # Scores are probabilities: 4 puts the union before all others, and K stays K.
        return best(score + 4.0 * first, self.chosen)

    def score_macs(self) -> int:
        """Return the cost of all rows of two blocks, or of one where no anchor is looked for."""
        blocks = 2 if self.anchors else 1
        return blocks * (self.place.special + self.place.tokens) ** 2 * self.place.dim


def _cross(anchors: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return (B, N): 1 at anchors (B, N) and their four neighbours on the grid."""
    rows, columns = shape
    grid = functional.pad(anchors.view(-1, rows, columns), (1, 1, 1, 1))
    near = grid[:, 1:-1, 1:-1]
    for top, left in ((0, 1), (2, 1), (1, 0), (1, 2)):
        near = torch.maximum(near, grid[:, top : top + rows, left : left + columns])
    return near.reshape(anchors.shape)


def _flat(anchors: Tensor, columns: int) -> Tensor:
    """Return (B, N): 1 at anchors, +-1 and +-columns in the flat index, clamped to its ends."""
    count = anchors.shape[1]
    flat = functional.pad(anchors, (columns, columns))
    near = anchors
    for step in (-columns, -1, 1, columns):
        near = torch.maximum(near, flat[:, columns + step : columns + step + count])
    # An anchor in the first row (or the last) is clamped to the first patch (or the last).
    first = torch.maximum(near[:, :1], anchors[:, :columns].amax(dim=1, keepdim=True))
    last = torch.maximum(near[:, -1:], anchors[:, -columns:].amax(dim=1, keepdim=True))
    return torch.cat((first, near[:, 1:-1], last), dim=1)
