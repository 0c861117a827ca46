"""Drop what did not change since the frame before (after LTFR, arXiv 2501.17391, temporal part).

The frames of a clip lie one after the other in one sequence. A patch is compared, by cosine, with
the one at the same place a frame earlier; each frame keeps equally many, those that changed most.
The first frame has none before it and stays whole: it is what the others are told apart from.

Differs from the paper: its abstract tells no more than that redundant tokens are dropped in space
and time without learning, and no code was at hand. This is the plain temporal form of the idea; for
space use any other method.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from prunus.models.tokens.reducer import Place, Side
from prunus.models.tokens.scores import unit
from prunus.models.tokens.selection import Merge, SelectingReducer, ascending
from prunus.runtime.errors import UsageError


class AdjacentFrames(SelectingReducer):
    """The first frame, then what changed most in each frame.

    Args:
        place: Where it stands.
        frames: Frames in the sequence; None: the rows of the grid.
        merge: See `SelectingReducer`.
        tau: See `SelectingReducer`.
    """

    reads_this: ClassVar[bool] = False

    def __init__(
        self,
        place: Place,
        *,
        frames: int | None = None,
        merge: Merge = "drop",
        tau: float = 0.1,
    ) -> None:
        super().__init__(place, merge=merge, tau=tau)
        self.commutes = ""
        self.refuse_fuse("ltfr")
        self.frames = place.require_grid("ltfr")[0] if frames is None else frames
        if self.frames < 2 or place.tokens % self.frames:
            raise UsageError(
                f"Method 'ltfr' at block {place.block} has {place.tokens} tokens of {self.frames} "
                "frames; expected at least 2 frames with equally many each.",
                "Give frames=..., or the grid (frames, patches of a frame).",
            )
        self.patches = place.tokens // self.frames
        left = place.keep - self.patches
        if left < 0 or left % (self.frames - 1):
            raise UsageError(
                f"Method 'ltfr' at block {place.block} keeps {place.keep} tokens: the "
                f"{self.patches} of the first frame and equally many of the {self.frames - 1} "
                "others.",
                f"Keep {self.patches} and a multiple of {self.frames - 1}.",
            )
        self.each = left // (self.frames - 1)

    def score(self, patches: Tensor, side: Side) -> Tensor:
        """Return (B, N): 1 - cosine with the frame before; 2 in the first frame."""
        features = unit(patches.detach())
        before = features[:, : -self.patches]
        change = 1 - (features[:, self.patches :] * before).sum(dim=2)
        return torch.cat((torch.full_like(change[:, : self.patches], 2.0), change), dim=1)

    def select(self, score: Tensor, patches: Tensor, side: Side) -> Tensor:
        """Return the first frame and the most changed of each other."""
        frames = score.view(score.shape[0], self.frames, self.patches)
        first = torch.arange(self.patches, device=score.device).expand(score.shape[0], -1)
        if not self.each:
            return first
        start = torch.arange(1, self.frames, device=score.device).view(1, -1, 1) * self.patches
        found = torch.topk(frames[:, 1:], self.each, dim=2).indices + start
        return ascending(torch.cat((first, found.flatten(1)), dim=1))
