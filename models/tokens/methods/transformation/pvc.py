"""Unshuffle and MLP, the spatial half of PVC (arXiv 2412.09613, section 3).

LayerNorm over the concatenated cell, Linear, GELU, Linear, as in InternVL's projector.

Differs from the paper: its progressive encoding over frames (causal attention in time, norms that
depend on the frame) belongs to a video network; a reducer sees one picture. Without it there is no
shortcut either: prefer ``laco`` inside an encoder.
"""

from __future__ import annotations

from torch import Tensor

from prunus.models.tokens.cells import CellMlp, CellReducer
from prunus.models.tokens.reducer import Place, Side


class Pvc(CellReducer):
    """MLP on the concatenated cell."""

    def __init__(self, place: Place) -> None:
        super().__init__(place, "pvc")
        self.mlp = CellMlp(self.area, self.dim)

    def mix(self, patches: Tensor, side: Side) -> Tensor:
        """Return (B, K, C)."""
        out: Tensor = self.mlp(self.cells(patches))
        return out

    def mix_macs(self) -> int:
        """Return the cost of the MLP."""
        return self.place.tokens * self.dim**2 + self.place.keep * self.dim**2
