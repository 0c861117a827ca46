"""What the cuts of a network did to each patch: for pictures, and as outputs of a graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from prunus.models.tokens.reducer import Reduced

DROPPED = -1


@contextmanager
def watched(cuts: Iterable[tuple[int, nn.Module]]) -> Iterator[dict[int, Reduced]]:
    """Collect what reducers do while they run: block -> the last `Reduced`."""
    seen: dict[int, Reduced] = {}
    handles = [
        cut.register_forward_hook(
            lambda _module, _args, out, block=block: seen.__setitem__(block, out)
        )
        for block, cut in cuts
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def rows_of(reduced: Reduced, n: int) -> Tensor:
    """Return (B, N) int64: the row 0..K-1 that each of `n` patches went to, -1 where it is gone.

    A patch that is spread over several rows is counted where most of it went.
    """
    if reduced.assign is not None:
        most = torch.topk(reduced.assign.transpose(1, 2), 1, dim=2)
        gone = torch.full_like(most.indices, DROPPED)
        return torch.where(most.values > 0, most.indices, gone)[..., 0]
    assert reduced.kept is not None, "a reduction has indices or a matrix"
    batch, k = reduced.kept.shape
    rows = torch.arange(k, device=reduced.kept.device).expand(batch, -1)
    gone = torch.full((batch, n), DROPPED, dtype=torch.int64, device=reduced.kept.device)
    return torch.scatter(gone, 1, reduced.kept, rows)


def token_maps(seen: Mapping[int, Reduced], tokens: int) -> dict[int, Tensor]:
    """Return block -> (B, tokens) int32: the token that stands for each original patch.

    Args:
        seen: What each cut did, in the order of the blocks.
        tokens: Patches that entered the network.

    Returns:
        Numbers 0..K-1 in the order of the tokens after that cut; -1 where the patch is gone.
    """
    maps: dict[int, Tensor] = {}
    where: Tensor | None = None
    count = tokens
    for block, reduced in seen.items():
        step = rows_of(reduced, count)
        if where is None:
            where = step
        else:
            ahead = torch.gather(step, 1, where.clamp_min(0))
            where = torch.where(where >= 0, ahead, where)
        maps[block] = where.to(torch.int32)
        width = reduced.kept if reduced.assign is None else reduced.assign
        assert width is not None, "a reduction has indices or a matrix"
        count = width.shape[1]
    return maps
