"""How much each patch of a block's output has to do with what the network reads out in the end.

GlobEnc (Modarressi et al., arXiv 2205.03286): a layer's contributions are norms of vectors, not
attention weights alone, and layers are joined by rollout. Here for pre-norm blocks, whose norm lies
in front of the values: with the patch's own value f(x_j) = scale1(out(v_j)) of the normed token,

    n_ij = | sum over heads of a_ij f(x_j) + (x_i where i = j) |,   rows divided by their sum,

the residual inside the norm as in the paper's section 3; the MLP is left out as there. Offline: it
costs far more than the scores that it grades.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from prunus.models.tokens.analysis.parts import BlocksInParts, Seen
from prunus.models.tokens.blocks.layouts import BlockLayout
from prunus.models.tokens.reducer import Place


def contributions(block: nn.Module, layout: BlockLayout, seen: Seen) -> Tensor:
    """Return (B, L, L) with rows that sum to 1: what token i of a block takes from token j.

    Args:
        block: The block.
        layout: Its parts.
        seen: What it saw.
    """
    query, key, value = (part.float() for part in seen.attention)
    batch, heads, length, depth = value.shape
    weights = torch.softmax(query @ key.transpose(-1, -2) * depth**-0.5, dim=-1)
    out = layout.part(block, layout.out).weight.float().T.reshape(heads, depth, -1)
    given = value @ out  # (B, heads, L, C): what each head makes of each token
    if layout.scale1:
        given = layout.part(block, layout.scale1)(given)
    norms = torch.empty(batch, length, length)
    for row in range(length):  # all rows at once would take L x L x C
        mixed = torch.einsum("bhj,bhjc->bjc", weights[:, :, row], given)
        mixed[:, row] += seen.tokens[:, row]
        norms[:, row] = mixed.norm(dim=-1)
    return norms / norms.sum(dim=-1, keepdim=True)


def rolled_out(layers: Sequence[Tensor], entry: Place) -> list[Tensor]:
    """Return (B, N) for each block but the last: the share of each patch of its output.

    Args:
        layers: `contributions` of all blocks in order.
        entry: Special tokens; what is read out is the class token, or the mean of all.
    """
    batch, length, _ = layers[-1].shape
    if entry.class_token:
        row = torch.zeros(batch, length)
        row[:, 0] = 1.0
    else:
        row = torch.full((batch, length), 1.0 / length)
    shares = []
    for layer in reversed(layers[1:]):
        row = (row[:, None] @ layer)[:, 0]
        shares.append(row[:, entry.special :])
    return shares[::-1]


def attributions(
    twin: nn.Module, parts: BlocksInParts, inputs: Sequence[Tensor]
) -> tuple[list[Tensor], list[Seen]]:
    """Return the shares of `rolled_out` for some inputs, and what each block saw.

    Args:
        twin: A network in parts.
        parts: Its blocks.
        inputs: Of one call.
    """
    seen: list[Seen] = []
    with torch.no_grad(), parts.heard(lambda number, what: seen.append(what)):
        twin(*inputs)
        layers = [
            contributions(block, parts.layout, what)
            for block, what in zip(parts.blocks, seen, strict=True)
        ]
    return rolled_out(layers, parts.entry), seen
