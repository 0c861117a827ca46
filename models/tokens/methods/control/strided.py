"""Keep evenly spaced patches in raster order."""

from __future__ import annotations

from prunus.models.tokens.constant import ConstantSelection, evenly
from prunus.models.tokens.reducer import Place


class StridedSelection(ConstantSelection):
    """The middle one of each of K equal stretches of the sequence."""

    def __init__(self, place: Place) -> None:
        super().__init__(place, evenly(place.tokens, place.keep).tolist())

    @property
    def grid(self) -> tuple[int, int] | None:
        """A row of K, where a row came in and the stretches are equal."""
        place = self.place
        if place.grid is not None and place.grid[0] == 1 and place.tokens % place.keep == 0:
            return (1, place.keep)
        return super().grid
