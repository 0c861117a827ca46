"""Earlier levels of a network, for methods that fuse several."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from prunus.models.tokens.reducer import Place, Side
from prunus.runtime.errors import UsageError


def earlier_levels(place: Place, method: str, words: str) -> tuple[int, ...]:
    """Return the blocks whose output a method reads beside its own tokens.

    Args:
        place: Where it stands.
        method: Its name, for messages.
        words: Blocks in words, e.g. ``3/6``; empty: one and two thirds of the way here
            from the first block that runs on the same tokens.

    Raises:
        UsageError: words that are no increasing list of blocks before this one.
    """
    if not words:
        way = place.block - place.since
        thirds = {place.since + way // 3, place.since + 2 * way // 3}
        return tuple(sorted(block for block in thirds if block < place.block))
    parts = words.split("/")
    blocks = tuple(int(part) for part in parts if part.isdigit())
    rising = all(a < b for a, b in itertools.pairwise((*blocks, place.block)))
    if len(blocks) != len(parts) or not rising:
        raise UsageError(
            f"Method '{method}' at block {place.block} reads the levels '{words}'; expected an "
            f"increasing list of blocks before {place.block}.",
            "For example: levels=1/3.",
        )
    return blocks


def join_levels(patches: Tensor, side: Side, blocks: tuple[int, ...], special: int) -> Tensor:
    """Return (B, N, (levels + 1) C): the patches of earlier blocks, then those of here."""
    earlier = [side.levels[block][:, special:] for block in blocks]
    return torch.cat((*earlier, patches), dim=2)
