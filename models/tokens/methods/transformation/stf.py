"""Fuse several levels of each patch, then the patches of each cell (LLaVA-STF, arXiv 2506.07138).

    z = Linear([x of earlier blocks ; x])        y = MLP(concatenated cell of z)

Differs from the paper: its fusion of eight levels by two layers costs as much as three blocks of a
ViT; here one layer joins three levels (option ``levels``: which blocks, e.g. ``3/6``). The second
MLP widens to `ratio` C, not to four times the cell.
"""

from __future__ import annotations

from torch import Tensor, nn

from prunus.models.tokens.cells import CellReducer
from prunus.models.tokens.methods.transformation.levels import earlier_levels, join_levels
from prunus.models.tokens.reducer import Place, Side
from prunus.runtime.errors import UsageError


class Stf(CellReducer):
    """Linear over levels, MLP over cells.

    Args:
        place: Where it stands.
        levels: Earlier blocks that are read, e.g. ``3/6``; empty: two, evenly spaced.
        ratio: Hidden width of the MLP in multiples of C.
    """

    def __init__(self, place: Place, *, levels: str = "", ratio: int = 4) -> None:
        super().__init__(place, "stf")
        if ratio < 1:
            raise UsageError(f"Option 'ratio' of method 'stf' is {ratio}; expected 1 or more.")
        self.reads_levels = earlier_levels(place, "stf", levels)
        dim, self.ratio = self.dim, ratio
        self.fuse = nn.Linear((len(self.reads_levels) + 1) * dim, dim)
        self.fc1 = nn.Linear(self.area * dim, ratio * dim)
        self.fc2 = nn.Linear(ratio * dim, dim)

    def mix(self, patches: Tensor, side: Side) -> Tensor:
        """Return (B, K, C)."""
        fused = self.fuse(join_levels(patches, side, self.reads_levels, self.place.special))
        hidden = nn.functional.gelu(self.fc1(self.cells(fused).flatten(2)))
        out: Tensor = self.fc2(hidden)
        return out

    def mix_macs(self) -> int:
        """Return the cost of the three layers."""
        n, k, square = self.place.tokens, self.place.keep, self.dim**2
        levels = len(self.reads_levels) + 1
        return (levels * n + self.ratio * n + self.ratio * k) * square
