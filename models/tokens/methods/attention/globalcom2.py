"""Share one budget among the tiles of a large picture (GlobalCom2, arXiv 2501.05179).

A thumbnail and the crops of a mosaic, all with the same grid, lie one after the other in one
sequence. Scores are logits of the class token, mean over heads. The thumbnail keeps its own best. A
crop's patch scores u(its own class token's logits) + u(the thumbnail's logits, bilinear, at its
place in the mosaic), where u makes a tile's scores a vector of length 1.

Differs from the paper's code: there each crop keeps K_p patches by t_p, the softmax over crops of
(sum of the thumbnail's logits inside it) / 10, so that K_p depends on the picture. Here log(t_p),
times `sharpness`, is added to the scores of the crop, and one TopK goes over all crops: the count
of a crop still depends on the picture, no shape does.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from prunus.models.tokens.reducer import Place, Side
from prunus.models.tokens.scores import tile_logit
from prunus.models.tokens.selection import Merge, SelectingReducer, ascending
from prunus.runtime.errors import UsageError

_TEMPERATURE = 10.0


class GlobalCom2(SelectingReducer):
    """One TopK over the thumbnail and one over all crops.

    Args:
        place: Where it stands. Its grid has the rows of all tiles, one tile below the other, the
            thumbnail first; special tokens are one class token for all, or one a tile, in order.
        rows: Rows of crops in the mosaic.
        columns: Columns of crops.
        sharpness: Weight of log(t_p): 0 ranks all crops' patches alike.
        merge: See `SelectingReducer`.
        tau: See `SelectingReducer`.
    """

    def __init__(
        self,
        place: Place,
        *,
        rows: int = 2,
        columns: int = 2,
        sharpness: float = 1.0,
        merge: Merge = "drop",
        tau: float = 0.1,
    ) -> None:
        super().__init__(place, merge=merge, tau=tau)
        self.commutes = ""
        self.refuse_fuse("globalcom2")
        place.require_class_token("globalcom2")
        height, width = place.require_grid("globalcom2")
        self.tiles = 1 + rows * columns
        tall = height // self.tiles
        if rows < 1 or columns < 1 or height % self.tiles or tall % rows or width % columns:
            raise UsageError(
                f"Method 'globalcom2' at block {place.block} takes a thumbnail and {rows} x "
                f"{columns} crops, one below the other; a grid of {height} x {width} is not "
                f"{self.tiles} tiles whose rows and columns split into {rows} and {columns}.",
                "Give rows and columns of the mosaic, and the grid of all tiles.",
            )
        if place.special not in (1, self.tiles):
            raise UsageError(
                f"Method 'globalcom2' at block {place.block} has {place.special} special tokens; "
                f"expected 1 class token, or {self.tiles}: one a tile."
            )
        self.tile, self.mosaic = (tall, width), (rows, columns)
        self.sharpness = sharpness
        self.thumbnail = round(self.chosen / self.tiles)

    def score(self, patches: Tensor, side: Side) -> Tensor:
        """Return (B, N): logits of each tile's own class token, or of the one for all."""
        return tile_logit(side.attention[self.place.block], self.place.special)

    def select(self, score: Tensor, patches: Tensor, side: Side) -> Tensor:
        """Return the best of the thumbnail, and the best of all crops together."""
        tall, width = self.tile
        rows, columns = self.mosaic
        tile, batch = tall * width, score.shape[0]
        small = score[:, :tile]
        kept = [torch.topk(small, self.thumbnail, dim=1).indices] if self.thumbnail else []
        count = self.chosen - self.thumbnail
        if count:
            own = score[:, tile:].view(batch, rows * columns, tile)
            large = functional.interpolate(
                small.view(batch, 1, tall, width),
                size=(rows * tall, columns * width),
                mode="bilinear",
                align_corners=False,
            )
            seen = self._cut_out(large.view(batch, rows, tall, columns, width))
            cell = (batch, rows, tall // rows, columns, width // columns)
            inside = self._cut_out(small.view(cell)).sum(dim=2)
            budget = torch.log_softmax(inside / _TEMPERATURE, dim=1).unsqueeze(2)
            joint = _length_one(own) + _length_one(seen) + self.sharpness * budget
            kept.append(tile + torch.topk(joint.flatten(1), count, dim=1).indices)
        return ascending(torch.cat(kept, dim=1))

    def _cut_out(self, mosaic: Tensor) -> Tensor:
        """Return (B, crops, patches) of (B, rows, height, columns, width)."""
        crops = mosaic.permute(0, 1, 3, 2, 4)
        return crops.reshape(mosaic.shape[0], self.tiles - 1, -1)

    def score_macs(self) -> int:
        """Return the cost of one row of logits, each patch with its tile's class token."""
        return self.place.tokens * self.place.dim


def _length_one(score: Tensor) -> Tensor:
    return score / score.square().sum(dim=2, keepdim=True).sqrt().clamp_min(1e-12)
