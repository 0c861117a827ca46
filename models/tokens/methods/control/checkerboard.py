"""Keep the patches of one colour of a checkerboard: spread in both directions."""

from __future__ import annotations

from prunus.models.tokens.constant import ConstantSelection, evenly
from prunus.models.tokens.reducer import Place


class Checkerboard(ConstantSelection):
    """The colour of the first patch.

    Fewer than its patches are evenly spaced among them; for more, all of them and evenly spaced
    ones of the other colour.
    """

    def __init__(self, place: Place) -> None:
        rows, columns = place.require_grid("checkerboard")
        colours: tuple[list[int], list[int]] = ([], [])
        for patch in range(rows * columns):
            colours[(patch // columns + patch % columns) % 2].append(patch)
        first, second = colours
        more = max(place.keep - len(first), 0)
        kept = [first[i] for i in evenly(len(first), place.keep - more).tolist()]
        kept += [second[i] for i in evenly(len(second), more).tolist()] if more else []
        super().__init__(place, kept)
