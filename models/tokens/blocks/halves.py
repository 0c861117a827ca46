"""A pre-norm block run in its two halves, attention and MLP, between which tokens are dropped."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from prunus.models.tokens.blocks.layouts import BlockLayout
from prunus.models.tokens.reducer import Attention


def counted(size: Tensor | None) -> Tensor | None:
    """Return (B, 1, 1, L): log(size), since a token that stands for s patches is looked at s times.

    ToMe (arXiv 2210.09461, equation 1).
    """
    return None if size is None else size.log()[:, None, None, :]


def attend(
    block: nn.Module, layout: BlockLayout, tokens: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Attention]:
    """Return tokens (B, L, C) with a block's attention added, and what it saw.

    Args:
        block: A pre-norm block.
        layout: Its parts.
        tokens: (B, L, C).
        bias: (1 or B, 1, 1 or L, L), added to the logits.
    """
    part = layout.part
    normed = part(block, layout.norm1)(tokens)
    projected = [part(block, path)(normed) for path in layout.qkv]
    if len(projected) == 1:
        projected = list(projected[0].chunk(3, dim=-1))
    batch, length, _ = tokens.shape
    heads = int(part(block, layout.heads))
    query, key, value = (p.reshape(batch, length, heads, -1).transpose(1, 2) for p in projected)
    if layout.query_norm:
        query = part(block, layout.query_norm)(query)
    if layout.key_norm:
        key = part(block, layout.key_norm)(key)
    mask = None if bias is None else bias.to(query.dtype)
    mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    out = part(block, layout.out)(mixed.transpose(1, 2).reshape(batch, length, -1))
    if layout.scale1:
        out = part(block, layout.scale1)(out)
    return tokens + out, Attention(query, key, value)


def feed(block: nn.Module, layout: BlockLayout, tokens: Tensor) -> Tensor:
    """Return what a block's MLP adds to tokens (B, L, C)."""
    out: Tensor = layout.part(block, layout.norm2)(tokens)
    for path in layout.mlp:
        out = layout.part(block, path)(out)
    if layout.scale2:
        out = layout.part(block, layout.scale2)(out)
    return out
