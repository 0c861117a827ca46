"""Space to channel and an MLP, beside a shortcut without weights (LaCo, arXiv 2507.02279).

    Y = MLP(space-to-channel X) + mean over channel groups (space-to-channel X)

With the channel as the slowest axis of space-to-channel, as in `pixel_unshuffle`, the second term
is the mean of the cell. The paper shows that the shortcut is what makes cuts inside an encoder
work.

Differs from the paper, whose code is not public: the norm stands in front of the MLP (its place
could not be confirmed), the hidden width is C, and the last layer starts at zero, so that an
untrained cut is average pooling.
"""

from __future__ import annotations

from torch import Tensor, nn

from prunus.models.tokens.cells import CellMlp, CellReducer
from prunus.models.tokens.reducer import Place, Side


class LaCo(CellReducer):
    """MLP on the concatenated cell, plus the cell's mean."""

    def __init__(self, place: Place) -> None:
        super().__init__(place, "laco")
        self.mlp = CellMlp(self.area, self.dim)
        nn.init.zeros_(self.mlp.fc2.weight)
        nn.init.zeros_(self.mlp.fc2.bias)

    def mix(self, patches: Tensor, side: Side) -> Tensor:
        """Return (B, K, C)."""
        cells = self.cells(patches)
        out: Tensor = self.mlp(cells) + cells.mean(dim=2)
        return out

    def mix_macs(self) -> int:
        """Return the cost of the MLP."""
        return self.place.tokens * self.dim**2 + self.place.keep * self.dim**2
