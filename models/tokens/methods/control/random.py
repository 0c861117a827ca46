"""Keep patches drawn once: the plainest rival of every method (When Less is Enough, arXiv
2503.16660, compares with it).

The draw is a constant of the graph; another seed is another constant.
"""

from __future__ import annotations

import torch

from prunus.models.tokens.constant import ConstantSelection
from prunus.models.tokens.reducer import Place


class RandomSelection(ConstantSelection):
    """K of N patches without repeats, equally likely.

    Args:
        place: Where it stands.
        seed: Seed of the draw.
    """

    def __init__(self, place: Place, *, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(place.tokens, generator=generator)
        super().__init__(place, order[: place.keep].tolist())
