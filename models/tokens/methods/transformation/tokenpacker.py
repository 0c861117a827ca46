"""One coarse query a cell looks at the cell's fine, multi-level patches (TokenPacker, arXiv
2407.02392, section 3.2).

    q = LN(W bilinear x)     k, v = LN(MLP([x of earlier blocks ; x]))     y = MLP(MHA(q, k, v))

Each cell is a window of local-global attention with one query and as many keys as it has patches.
Bilinear down-sampling by a whole factor reads the patch in the middle, or the two around it on a
side of even length.

Differs from the published code: three levels (option ``levels``) instead of four; both MLPs stay C
wide, since the tokens go on inside the encoder.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunus.models.layers.local_global.attention import window_attention
from prunus.models.layers.local_global.index import AttentionIndex, WindowTables, grid_windows
from prunus.models.tokens.cells import CellReducer
from prunus.models.tokens.methods.transformation.levels import earlier_levels, join_levels
from prunus.models.tokens.reducer import Commutes, Place, Side
from prunus.runtime.errors import UsageError


class TokenPacker(CellReducer):
    """Attention of one query within each cell.

    Args:
        place: Where it stands.
        levels: Earlier blocks that are read, e.g. ``3/6``; empty: two, evenly spaced.
        heads: Attention heads; 0: as many as the network has.
    """

    commutes: Commutes = "flip"
    middle: Tensor

    def __init__(self, place: Place, *, levels: str = "", heads: int = 0) -> None:
        super().__init__(place, "tokenpacker")
        dim, self.heads = self.dim, heads or place.heads or 1
        if self.heads < 1 or dim % self.heads:
            raise UsageError(
                f"Method 'tokenpacker' has {self.heads} heads for {dim} channels; expected a "
                "divisor."
            )
        self.reads_levels = earlier_levels(place, "tokenpacker", levels)
        wide = (len(self.reads_levels) + 1) * dim
        self.q_proj = nn.Linear(dim, dim, bias=False)
        self.k_proj = nn.Sequential(nn.Linear(wide, dim), nn.GELU(), nn.Linear(dim, dim))
        self.v_proj = nn.Sequential(nn.Linear(wide, dim), nn.GELU(), nn.Linear(dim, dim))
        self.ln_q, self.ln_k, self.ln_v = (nn.LayerNorm(dim, eps=1e-6) for _ in range(3))
        self.in_q, self.in_k, self.in_v, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.mlp = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))
        grid = place.require_grid("tokenpacker")
        keys = grid_windows(grid, self.cell).kv_index
        queries = torch.arange(place.keep).unsqueeze(1)
        self.index = AttentionIndex(WindowTables(queries, keys, place.tokens))
        self.register_buffer("middle", _middle(self.cell), persistent=False)

    def mix(self, patches: Tensor, side: Side) -> Tensor:
        """Return (B, K, C)."""
        joined = join_levels(patches, side, self.reads_levels, self.place.special)
        coarse = (self.cells(patches) * self.middle).sum(dim=2)
        q = self.in_q(self.ln_q(self.q_proj(coarse)))
        k = self.in_k(self.ln_k(self.k_proj(joined)))
        v = self.in_v(self.ln_v(self.v_proj(joined)))
        mixed = window_attention(q, k, v, self.index, num_heads=self.heads)
        out: Tensor = self.mlp(self.out(mixed))
        return out

    def mix_macs(self) -> int:
        """Return the cost of projections, attention and MLP."""
        n, k, dim = self.place.tokens, self.place.keep, self.dim
        levels = len(self.reads_levels) + 1
        keys = 2 * (levels + 2) * n * dim**2
        queries = 5 * k * dim**2
        return keys + queries + 2 * n * dim


def _middle(cell: tuple[int, int]) -> Tensor:
    """Return (patches of a cell, 1): weights of bilinear down-sampling by the cell's size."""
    rows, columns = (_line(side) for side in cell)
    return (rows[:, None] * columns[None]).reshape(-1, 1)


def _line(side: int) -> Tensor:
    weights = torch.zeros(side)
    weights[(side - 1) // 2] += 0.5
    weights[side // 2] += 0.5
    return weights
