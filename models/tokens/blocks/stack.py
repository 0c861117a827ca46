"""All blocks of a network as one module, with the cuts between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from prunus.models.tokens.blocks.halves import attend, counted, feed
from prunus.models.tokens.blocks.layouts import BlockLayout
from prunus.models.tokens.plan import PruningPlan
from prunus.models.tokens.reducer import Attention, Place, Reduced, Restore, Side, TokenReducer
from prunus.models.tokens.report import watched
from prunus.runtime.errors import UsageError


class PrunedBlocks(nn.Module):
    """All blocks of a network, with the cuts between them.

    Args:
        blocks: The network's own.
        layout: Their parts.
        cuts: Reducers by block.
        restore: What comes out, see `prune`.
        plan: What the cuts follow.
        entry: The place in front of all blocks.
        beside: What the blocks give beside the tokens when all of them run in halves; None: they
            give tokens alone.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        layout: BlockLayout,
        cuts: dict[int, TokenReducer],
        *,
        restore: Restore,
        plan: PruningPlan,
        entry: Place,
        beside: tuple[None, ...] | None = None,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.cuts = nn.ModuleDict({str(block): cut for block, cut in cuts.items()})
        self.layout = layout
        self.restoring: Restore = restore
        self.plan = plan
        self.entry = entry
        self.beside = beside
        self.active = True
        self._heard = {b for cut in cuts.values() for b in cut.reads_attention} | {
            block for block, cut in cuts.items() if cut.reads_this
        }
        self._levels = {b for cut in cuts.values() for b in cut.reads_levels}

    def reducers(self) -> Iterator[tuple[int, TokenReducer]]:
        """Return block and reducer of each cut."""
        for block, cut in self.cuts.items():
            assert isinstance(cut, TokenReducer)
            yield int(block), cut

    def forward(self, tokens: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run the blocks on (B, special + N, C); what else the network gives goes to each.

        Raises:
            UsageError: a mask is given, which would not fit fewer tokens.
        """
        args, kwargs = _without_masks(args, kwargs)
        attention: dict[int, Attention] = {}
        levels: dict[int, Tensor] = {}
        size: Tensor | None = None
        done: list[tuple[TokenReducer, Reduced, Tensor]] = []
        cuts = dict(self.reducers()) if self.active else {}
        beside: tuple[Any, ...] | None = self.beside
        for number, block in enumerate(self.blocks):
            cut = cuts.get(number)
            if (cut is None and number not in self._heard and size is None) or not self.active:
                out = block(tokens, *args, **kwargs)
                tokens, beside = (out[0], out[1:]) if isinstance(out, tuple) else (out, None)
            else:
                tokens, seen = attend(block, self.layout, tokens, counted(size))
                if number in self._heard:
                    attention[number] = seen
                if cut is not None:
                    before = tokens
                    reduced: Reduced = cut(tokens, Side(attention, levels, size))
                    tokens = reduced.x
                    done.append((cut, reduced, before))
                    attention, levels = {}, {}  # of tokens that are no more
                    size = _next_size(size, reduced, cut.place.special)
                tokens = tokens + feed(block, self.layout, tokens)
            if number in self._levels:
                levels[number] = tokens
        if self.restoring != "none":
            for cut, reduced, before in reversed(done):
                tokens = cut.restore(tokens, reduced, before, self.restoring)
        return tokens if beside is None else (tokens, *beside)


def _without_masks(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what the network gives its blocks, without masks.

    `prune` saw that the network gives none. While it is traced, `transformers` makes one that
    hides nothing, of the size of all tokens: it is left out.
    """
    given = [*args, *kwargs.values()]
    if not any(isinstance(value, Tensor) for value in given):
        return args, kwargs
    if not torch.compiler.is_compiling():
        shapes = [list(value.shape) for value in given if isinstance(value, Tensor)]
        raise UsageError(
            f"The blocks get tensors {shapes} beside the tokens (a mask?); pruned ones take none.",
            "Leave the mask out, or prune on inputs that need none.",
        )
    return (
        tuple(None if isinstance(value, Tensor) else value for value in args),
        {key: None if isinstance(value, Tensor) else value for key, value in kwargs.items()},
    )


def _next_size(size: Tensor | None, reduced: Reduced, special: int) -> Tensor | None:
    """Return (B, special + K): patches that each token stands for after a cut."""
    if reduced.size is not None:
        ones = torch.ones(reduced.size.shape[0], special, device=reduced.size.device)
        return torch.cat((ones, reduced.size), dim=1)
    if size is None or reduced.kept is None:
        return None
    kept = torch.gather(size[:, special:], 1, reduced.kept)
    return torch.cat((size[:, :special], kept), dim=1)


def find_pruned(network: nn.Module) -> PrunedBlocks | None:
    """Return the pruned blocks of a network, None where `prune` made none."""
    return next((m for m in network.modules() if isinstance(m, PrunedBlocks)), None)


def pruned_blocks(network: nn.Module) -> PrunedBlocks:
    """Return the pruned blocks of a network that `prune` made; raises UsageError for another."""
    found = find_pruned(network)
    if found is None:
        raise UsageError(
            f"{type(network).__name__} has no pruned blocks; expected one from prune()."
        )
    return found


@contextmanager
def uncut_again(stack: PrunedBlocks) -> Iterator[None]:
    """Let the blocks run as if nothing were cut."""
    stack.active = False
    try:
        yield
    finally:
        stack.active = True


@contextmanager
def reductions(network: nn.Module) -> Iterator[dict[int, Reduced]]:
    """Collect what the cuts do while the network runs: block -> the last `Reduced`.

    Example:
        >>> with reductions(pruned) as seen:  # doctest: +SKIP
        ...     pruned(pixels)
        >>> seen[4].kept  # (B, K) patches that survived block 4
    """
    with watched(pruned_blocks(network).reducers()) as seen:
        yield seen
