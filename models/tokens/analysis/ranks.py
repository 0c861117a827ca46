"""Whether a cheap score ranks patches as attribution does: Spearman's correlation of the two."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from prunus.models.tokens import scores
from prunus.models.tokens.analysis.attribution import attributions
from prunus.models.tokens.analysis.parts import BlocksInParts, Seen
from prunus.models.tokens.reducer import Place

Score = Callable[[Seen, Place], Tensor]

# What `prunus.models.tokens.scores` offers, and two that look at no attention.
CLASS_SCORES: dict[str, Score] = {
    "class attention": lambda seen, at: scores.class_probability(seen.attention, at.special),
    "class logit": lambda seen, at: scores.class_logit(seen.attention, at.special),
    "class x value": lambda seen, at: scores.class_value(seen.attention, at.special),
}
SCORES: dict[str, Score] = {
    "attention received": lambda seen, at: scores.column_mean(seen.attention, at.special),
    "length of value": lambda seen, at: _length(seen.attention.value.transpose(1, 2), at),
    "length of token": lambda seen, at: _length(seen.out, at),
}


def _length(vectors: Tensor, place: Place) -> Tensor:
    """Return (B, N): lengths of vectors (B, L, ...)."""
    length: Tensor = vectors[:, place.special :].float().flatten(2).norm(dim=-1)
    return length


def spearman(one: Tensor, other: Tensor) -> Tensor:
    """Return (B,): correlation of the ranks of (B, N) values; equal ones share a rank.

    Example:
        >>> spearman(torch.tensor([[1.0, 2.0, 9.0]]), torch.tensor([[0.0, 5.0, 6.0]]))
        tensor([1.])
    """
    ranks = [_ranks(values) for values in (one, other)]
    first, second = (r - r.mean(dim=1, keepdim=True) for r in ranks)
    lengths = (first.norm(dim=1) * second.norm(dim=1)).clamp_min(1e-12)
    correlation: Tensor = (first * second).sum(1) / lengths
    return correlation


def _ranks(values: Tensor) -> Tensor:
    below = (values[:, None, :] < values[:, :, None]).sum(2)
    same = (values[:, None, :] == values[:, :, None]).sum(2)
    return below + (same - 1) / 2.0


def rank_table(
    twin: nn.Module, parts: BlocksInParts, batches: Sequence[Sequence[Tensor]]
) -> dict[str, list[tuple[float, float]]]:
    """Return for each score, block by block but the last: mean correlation, and its deviation.

    Args:
        twin: A network in parts.
        parts: Its blocks.
        batches: Inputs of calls.
    """
    rows = {**(CLASS_SCORES if parts.entry.class_token else {}), **SCORES}
    found: dict[str, list[list[Tensor]]] = {name: [] for name in rows}
    for inputs in batches:
        shares, seen = attributions(twin, parts, inputs)
        for name, score in rows.items():
            pairs = zip(seen, shares, strict=False)
            found[name].append([spearman(score(s, parts.entry), a) for s, a in pairs])
    table = {}
    for name, runs in found.items():
        blocks = [torch.cat(column) for column in zip(*runs, strict=True)]
        table[name] = [(float(b.mean()), float(b.std(correction=0))) for b in blocks]
    return table
