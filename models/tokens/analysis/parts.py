"""A copy of a network whose blocks run in parts: looked into, or with attention knocked out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from prunus.models.tokens.blocks.halves import attend, feed
from prunus.models.tokens.blocks.layouts import BlockLayout, replace_blocks
from prunus.models.tokens.blocks.stack import pruned_blocks
from prunus.models.tokens.prune import tensors_of, uncut
from prunus.models.tokens.reducer import Attention, Place
from prunus.runtime.errors import UsageError

_SAME = 1e-3  # of the largest output: the blocks sum in another order, one after the other


class Seen(NamedTuple):
    """What a block saw.

    Attributes:
        tokens: (B, L, C) that entered it.
        attention: Queries, keys and values of its attention.
        out: (B, L, C) that left it.
    """

    tokens: Tensor
    attention: Attention
    out: Tensor


class BlocksInParts(nn.Module):
    """All blocks of a network, each run in parts.

    Args:
        blocks: The network's own.
        layout: Their parts.
        entry: The place in front of all of them.

    Attributes:
        cut_off: Blocks in which no token takes anything from a patch other than itself.
        hear: Gets the number of each block and what it saw.
    """

    def __init__(self, blocks: Sequence[nn.Module], layout: BlockLayout, entry: Place) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.layout, self.entry = layout, entry
        self.cut_off: frozenset[int] = frozenset()
        self.hear: Callable[[int, Seen], None] | None = None
        self._hand_on: Callable[[Tensor], Any] | None = None

    def forward(self, tokens: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run the blocks on (B, special + N, C)."""
        if self._hand_on is None:
            self._hand_on = _way_of(self.blocks[0](tokens, *args, **kwargs))
        for number, block in enumerate(self.blocks):
            bias = self._wall(tokens) if number in self.cut_off else None
            mixed, attention = attend(block, self.layout, tokens, bias)
            out = mixed + feed(block, self.layout, mixed)
            if self.hear is not None:
                self.hear(number, Seen(tokens, attention, out))
            tokens = out
        return self._hand_on(tokens)

    def _wall(self, tokens: Tensor) -> Tensor:
        """Return (1, 1, L, L): minus infinity between a token and every patch but itself."""
        length, special = tokens.shape[1], self.entry.special
        open_to = torch.eye(length, dtype=torch.bool, device=tokens.device)
        open_to[:, :special] = True
        wall = torch.zeros(length, length, device=tokens.device)
        return wall.masked_fill(~open_to, float("-inf"))[None, None]

    @contextmanager
    def without(self, numbers: Sequence[int]) -> Iterator[None]:
        """Knock attention to other patches out of some blocks."""
        self.cut_off = frozenset(numbers)
        try:
            yield
        finally:
            self.cut_off = frozenset()

    @contextmanager
    def heard(self, hear: Callable[[int, Seen], None]) -> Iterator[None]:
        """Listen to each block."""
        self.hear = hear
        try:
            yield
        finally:
            self.hear = None


def _way_of(out: Any) -> Callable[[Tensor], Any]:
    """Return how a block hands tokens on: alone, or with what it gave beside them."""
    if not isinstance(out, tuple):
        return lambda tokens: tokens
    beside = out[1:]
    return lambda tokens: (tokens, *beside)


def in_parts(network: nn.Module, example: Sequence[Tensor]) -> tuple[nn.Module, BlocksInParts]:
    """Return a copy of a network and the blocks in it, which run in parts.

    Args:
        network: As `prune` takes them.
        example: Inputs of one call.

    Raises:
        UsageError: its blocks are not found, or are not what their layout says.
    """
    twin = uncut(network, example)
    stack = pruned_blocks(twin)
    parts = BlocksInParts(list(stack.blocks), stack.layout, stack.entry)
    replace_blocks(twin, stack.layout, [parts])
    network = network.eval()
    with torch.no_grad():
        for own, made in zip(
            tensors_of(network(*example)), tensors_of(twin.eval()(*example)), strict=True
        ):
            off = float((own - made).abs().max() / own.abs().max().clamp_min(1e-12))
            if not off <= _SAME:
                raise UsageError(
                    f"{type(network).__name__} in parts gives other outputs: they differ by "
                    f"{off:.2g} of the largest.",
                    "Its blocks are not plain pre-norm ones (rotary positions, a mask, ...).",
                )
    return twin, parts
