"""From logits at 1/8 of the input to a class for every pixel, comparing few classes instead of all.

Enlarging 150 logits to 512x512 writes 157 MB, and finding the best of them reads it all again: on a
CPU that costs more than EDAFormer-T itself. But a pixel lies between four cells, its logits are a
weighted mean of theirs, and a class that is best at all four is best in between. So only the
best few classes of each of the four cells are candidates: 16 instead of 150.

The order of the axes decides the time. A row of patches is the innermost axis everywhere, so that
kernels read and write long runs; the best classes are taken over the middle axis, one row of cells
at a time, which stays in the first cache; and one column of pixels of all patches is compared at
a time, which stays in the second.
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

    above_below: Tensor
    left_right: Tensor
    corners: Tensor
    shares: Tensor
    first: Tensor

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
            torch.stack([torch.arange(n + 1) - 1, torch.arange(n + 1)]).clamp(0, n - 1)
            for n in (height, width)
        )
        corners = rows.t()[:, None, :, None, None] * (classes * width) + columns[:, None, None]
        start = torch.arange(height + 1)[:, None, None] * (4 * candidates * (width + 1))
        for name, table in (
            ("above_below", rows.t().reshape(-1)),
            ("left_right", columns.reshape(-1)),
            # (patch rows, left or right, above or below, 1, patch columns): where a cell begins
            ("corners", corners.to(torch.int32)),
            ("shares", (torch.arange(scale) + 0.5) / scale),
            ("first", start + torch.arange(width + 1)),
        ):
            self.register_buffer(name, table, persistent=False)

    def forward(self, logits: Tensor) -> Tensor:
        """Map logits (B, classes, height, width) to int32 (B, height * scale, width * scale)."""
        return torch.cat([self._one(image) for image in logits.unbind(0)])

    def _one(self, logits: Tensor) -> Tensor:
        rows, columns, scale = self.height + 1, self.width + 1, self.scale  # of patches
        number = 4 * self.candidates
        table = logits.transpose(0, 1)  # (cell rows, classes, cell columns)
        best = table.topk(self.candidates, dim=1).indices.to(torch.int32)
        named = best.index_select(0, self.above_below).index_select(2, self.left_right)
        named = named.reshape(rows, 1, 1, number, columns)  # the candidates of each patch
        places = named * self.width + self.corners
        known = table.reshape(-1).index_select(0, places.reshape(-1))
        # Two weighted means rather than a product with constant weights, which a back end would
        # compute in its number format for layers.
        top, bottom = known.reshape(rows, 2, 2, 1, number * columns).unbind(2)
        sides = top + (bottom - top) * self.shares[:, None]
        left, right = sides.unbind(1)  # (patch rows, pixel rows, candidates * patch columns)
        step = right - left
        winners = [
            (left + step * share).reshape(rows, scale, number, columns).argmax(dim=2)
            for share in self.shares.unbind(0)
        ]
        places = torch.stack(winners) * columns + self.first
        classes = named.reshape(-1).index_select(0, places.reshape(-1))
        # (pixel columns, patch rows, pixel rows, patch columns) to pixels in their places
        whole = classes.reshape(scale, -1).t().reshape(1, rows * scale, columns * scale)
        half = scale // 2
        return whole[:, half : half + self.height * scale, half : half + self.width * scale]


def worthwhile(classes: int, candidates: int = CANDIDATES) -> bool:
    """Tell whether candidates are few enough to pay for finding them."""
    return classes >= 12 * candidates
