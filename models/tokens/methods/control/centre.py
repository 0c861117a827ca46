"""Keep the middle of the picture: what a narrower crop would have kept."""

from __future__ import annotations

from prunus.models.tokens.constant import ConstantSelection
from prunus.models.tokens.reducer import Place
from prunus.runtime.errors import UsageError


class CentreSelection(ConstantSelection):
    """The K patches nearest to the middle of the grid, or a rectangle of them.

    Args:
        place: Where it stands; a grid.
        rows: Rows of a centred rectangle with K / rows columns, which is a grid again; None: the
            nearest patches by Euclidean distance, ties in raster order.
    """

    def __init__(self, place: Place, *, rows: int | None = None) -> None:
        height, width = place.require_grid("centre")
        shape: tuple[int, int] | None = None
        if rows is None:
            kept = sorted(
                range(place.tokens),
                key=lambda p: (
                    (2 * (p // width) - height + 1) ** 2 + (2 * (p % width) - width + 1) ** 2
                ),
            )[: place.keep]
        else:
            columns = place.keep // max(rows, 1)
            if rows < 1 or rows * columns != place.keep or rows > height or columns > width:
                raise UsageError(
                    f"Method 'centre' at block {place.block} cannot keep {place.keep} patches in "
                    f"{rows} rows of a grid of {height} x {width}.",
                    "Give a number of rows that divides them and fits.",
                )
            top, left = (height - rows) // 2, (width - columns) // 2
            kept = [
                row * width + column
                for row in range(top, top + rows)
                for column in range(left, left + columns)
            ]
            shape = (rows, columns)
        super().__init__(place, kept)
        self.shape = shape

    @property
    def grid(self) -> tuple[int, int] | None:
        """The rectangle, where one was asked for."""
        return self.shape or super().grid
