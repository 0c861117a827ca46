"""Concatenate the patches of a window, one linear layer (WiCo, arXiv 2504.04024, section 3).

Differs from the paper: windows do not overlap (the released layer is sized for that case too); the
layer starts as the mean of the window, so that an untrained cut is average pooling; the paper's
fine-tuning of the encoder's last layers is `prunus.models.training.tokens.distil`. WiCo+, which
expands tokens again inside a language model, is left out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunus.models.tokens.cells import CellReducer
from prunus.models.tokens.reducer import Place, Side


class WiCo(CellReducer):
    """One Linear on the concatenated cell."""

    def __init__(self, place: Place) -> None:
        super().__init__(place, "wico")
        self.proj = nn.Linear(self.area * self.dim, self.dim)
        with torch.no_grad():
            self.proj.weight.copy_(torch.eye(self.dim).repeat(1, self.area) / self.area)
            self.proj.bias.zero_()

    def mix(self, patches: Tensor, side: Side) -> Tensor:
        """Return (B, K, C): the layer on each cell."""
        out: Tensor = self.proj(self.cells(patches).flatten(2))
        return out

    def mix_macs(self) -> int:
        """Return the cost of the layer."""
        return self.place.tokens * self.dim**2
