"""Keep patches that are spread over the grid, then those of the best score (Balanced Token Pruning,
arXiv 2505.22038).

The spread is farthest-point sampling on the grid by Manhattan distance. It depends on the grid
alone, so it is a constant of the graph and costs nothing at run time. Its share should fall with
depth: diversity early, attention late.

Differs from the paper: it prunes inside a language model, balances attention with the diversity of
features, and places its cuts where the similarity of neighbouring layers dips on 64 pictures. What
is kept of it is the spatial start of its diverse set, and the share as an option of each cut; the
score is the class token's attention, or what a patch receives where there is none.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prunus.models.tokens.reducer import Place, Side
from prunus.models.tokens.scores import importance, importance_macs
from prunus.models.tokens.selection import Merge, SelectingReducer, best, require_share


class BalancedPruning(SelectingReducer):
    """A constant spread of patches, then the best of the rest.

    Args:
        place: Where it stands; a grid.
        spread: Share of the K patches that are kept for their place.
        merge: See `SelectingReducer`.
        tau: See `SelectingReducer`.
    """

    prior: Tensor

    def __init__(
        self, place: Place, *, spread: float = 0.5, merge: Merge = "drop", tau: float = 0.1
    ) -> None:
        super().__init__(place, merge=merge, tau=tau)
        self.commutes = ""
        require_share("btp", "spread", spread)
        prior = torch.zeros(place.tokens)
        grid = place.require_grid("btp")
        prior[farthest_points(grid, round(spread * self.chosen))] = 4.0
        self.register_buffer("prior", prior, persistent=False)

    def score(self, patches: Tensor, side: Side) -> Tensor:
        """Return (B, N): the attention that patches receive."""
        return importance(side.attention[self.place.block], self.place)

    def select(self, score: Tensor, patches: Tensor, side: Side) -> Tensor:
        """Return the constant ones, then the best of the rest: a probability is at most 1."""
        return best(score + self.prior, self.chosen)

    def score_macs(self) -> int:
        """Return the cost of the class token's row, or of all rows."""
        return importance_macs(self.place)


def farthest_points(grid: tuple[int, int], count: int) -> list[int]:
    """Return `count` patches of a grid, each as far as can be from those before it.

    Distances are Manhattan; the first is the middle of the grid; ties go to the lower index.
    """
    rows, columns = grid
    places = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"))
    places = places.reshape(2, -1).T
    found: list[int] = []
    distance = -(2 * places - torch.tensor([rows - 1, columns - 1])).abs().sum(dim=1)
    for _ in range(count):
        found.append(int(distance.argmax()))
        near = (places - places[found[-1]]).abs().sum(dim=1)
        distance = near if len(found) == 1 else torch.minimum(distance, near)
    return found
