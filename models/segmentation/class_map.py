"""From logits at 1/8 of the input to a class for every pixel, comparing few classes instead of all.

Enlarging 150 logits to 512x512 writes 157 MB, and finding the best of them reads it all again: on a
CPU that costs more than EDAFormer-T itself. But a pixel lies between four cells, its logits are a
weighted mean of theirs, and a class that is best at all four is best in between. So only the
best few classes of each of the four cells are candidates: 16 instead of 150.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

CANDIDATES = 4  # per cell; a pixel compares four times as many


class CandidateArgMax(nn.Module):
    """Class numbers of bilinearly enlarged logits, the arg-max taken over candidates.

    The result is that of ``interpolate(logits, scale_factor=scale).argmax(1)`` (half-pixel centres,
    edges repeated) except where the best class of a pixel is among the `candidates` best of none
    of the four cells around it, and where classes are equal to the last bit.

    Args:
        classes: Number of classes.
        height: Rows of cells.
        width: Columns of cells.
        scale: Pixels per cell, even.
        candidates: Classes taken from each cell.
    """

    cells: Tensor
    corners: Tensor
    shares: Tensor

    def __init__(
        self, classes: int, height: int, width: int, scale: int = 8, candidates: int = CANDIDATES
    ) -> None:
        super().__init__()
        if scale % 2 or not 1 <= candidates <= classes:
            raise ValueError(f"need an even scale and 1..{classes} candidates: {scale, candidates}")
        self.height, self.width, self.scale, self.candidates = height, width, scale, candidates
        # A patch of scale x scale pixels lies between the centres of four cells; patches at the
        # border have their outer cells repeated, and are cut in half at the end.
        rows, columns = (
            torch.stack([torch.arange(n + 1) - 1, torch.arange(n + 1)], 1).clamp(0, n - 1)
            for n in (height, width)
        )
        cells = (rows[:, None, :, None] * width + columns[None, :, None, :]).reshape(-1, 4)
        self.register_buffer("cells", cells.reshape(-1), persistent=False)
        self.register_buffer("corners", (cells * classes)[:, :, None], persistent=False)
        self.register_buffer("shares", (torch.arange(scale) + 0.5) / scale, persistent=False)

    def forward(self, logits: Tensor) -> Tensor:
        """Map logits (B, classes, height, width) to int64 (B, height * scale, width * scale)."""
        return torch.cat([self._one(image) for image in logits.unbind(0)])

    def _one(self, logits: Tensor) -> Tensor:
        table = logits.flatten(1).transpose(0, 1)  # (cells, classes)
        best = table.topk(self.candidates, dim=1).indices
        number, scale = 4 * self.candidates, self.scale
        named = best.index_select(0, self.cells).reshape(-1, 1, number)  # of each patch
        places = self.corners + named
        known = table.reshape(-1).index_select(0, places.reshape(-1))
        # Two weighted means rather than a product with constant weights, which a back end would
        # compute in its number format for layers.
        top, bottom = known.reshape(-1, 2, 2 * number, 1).unbind(1)
        rows = top + (bottom - top) * self.shares
        left, right = rows.reshape(-1, 2, number, scale, 1).unbind(1)
        pixels = left + (right - left) * self.shares  # (patches, candidates, rows, columns)
        winner = pixels.reshape(-1, number, scale * scale).argmax(dim=1)
        first = torch.arange(len(named), device=logits.device)[:, None] * number
        classes = named.reshape(-1).index_select(0, (first + winner).reshape(-1))
        return self._joined(classes)

    def _joined(self, classes: Tensor) -> Tensor:
        """Put the patches' pixels in their places: (patches * pixels,) -> (1, rows, columns)."""
        rows, columns, scale = self.height + 1, self.width + 1, self.scale
        whole = classes.reshape(1, rows, columns, scale, scale).permute(0, 1, 3, 2, 4)
        whole = whole.reshape(1, rows * scale, columns * scale)
        half = scale // 2
        return whole[:, half : half + self.height * scale, half : half + self.width * scale]


def worthwhile(classes: int, candidates: int = CANDIDATES) -> bool:
    """Tell whether candidates are few enough to pay for finding them."""
    return classes >= 12 * candidates
