"""How much a patch matters, by the attention it receives: side branches of one block.

Only the query rows that a score needs are computed again, so that the block's own attention stays
one fused kernel. Scores are float32 through the softmax, also under autocast: with a thousand
tokens the mean probability is 1e-3, and close ranks collapse in half precision.

Every function takes the attention of a block over special + N tokens and returns one value a patch;
special columns are dropped after the softmax.
"""

from __future__ import annotations

import contextlib
import math

import torch
from torch import Tensor

from prunus.models.tokens.reducer import Attention, Place


def special_probability(attention: Attention, special: int) -> Tensor:
    """Return (B, special, N): what each special token pays each patch, mean over heads.

    EViTPose and PPT (arXiv 2209.08194, section 3.2) sum it over joint tokens.
    """
    return _probability(attention.query[:, :, :special], attention.key)[..., special:].mean(dim=1)


def class_probability(attention: Attention, special: int) -> Tensor:
    """Return (B, N): what the class token (the first) pays each patch, mean over heads.

    EViT (arXiv 2202.07800, section 3.2).
    """
    row = _probability(attention.query[:, :, :1], attention.key)
    return row[:, :, 0, special:].mean(dim=1)


def class_logit(attention: Attention, special: int) -> Tensor:
    """Return (B, N): the class token's logits before the softmax, mean over heads.

    GlobalCom2 (arXiv 2501.05179) ranks by these; one peaky head counts less than after a softmax.
    """
    logits = _logits(attention.query[:, :, :1], attention.key)
    return logits[:, :, 0, special:].mean(dim=1)


def tile_logit(attention: Attention, tiles: int) -> Tensor:
    """Return (B, N): `class_logit` where the tokens of several tiles lie one after the other.

    The first `tiles` tokens are class tokens, one a tile; each is met by its own tile's patches.
    """
    query, key = attention.query[:, :, :tiles], attention.key[:, :, tiles:]
    batch, heads, _, depth = query.shape
    # The mean of the heads' logits is one product as wide as all heads together.
    query = query.transpose(1, 2).reshape(batch, tiles, 1, heads * depth)
    key = key.transpose(1, 2).reshape(batch, tiles, -1, heads * depth)
    logits = _logits(query, key).reshape(batch, -1)
    return logits / math.sqrt(heads)  # they were scaled for a head as wide as all together


def class_value(attention: Attention, special: int) -> Tensor:
    """Return (B, N) summing to 1: `class_probability` times the length of the patch's value.

    ATS (arXiv 2111.15667, section 3.1).
    """
    values = attention.value[:, :, special:].detach().float()
    length = values.square().sum(dim=(1, 3)).sqrt()
    score = class_probability(attention, special) * length
    return score / score.sum(dim=1, keepdim=True)


def column_mean(attention: Attention, special: int) -> Tensor:
    """Return (B, N): what a patch receives from all tokens, mean over heads and queries.

    HiPrune (arXiv 2508.00553). Needs no class token; costs one more product of queries and keys.
    """
    return _probability(attention.query, attention.key).mean(dim=(1, 2))[:, special:]


def importance(attention: Attention, place: Place) -> Tensor:
    """Return (B, N): `class_probability` where there is a class token, else `column_mean`."""
    if place.class_token:
        return class_probability(attention, place.special)
    return column_mean(attention, place.special)


def importance_macs(place: Place) -> int:
    """Return the multiply-accumulates of `importance`: one row of logits, or all of them."""
    length = place.special + place.tokens
    return length * place.dim * (1 if place.class_token else length)


def mean_key(attention: Attention, special: int) -> Tensor:
    """Return (B, N, d) of length 1: the patches' keys, mean over heads.

    ToMe (arXiv 2210.09461, section 3) compares tokens by it.
    """
    return unit(attention.key[:, :, special:].mean(dim=1))


def unit(tokens: Tensor) -> Tensor:
    """Return tokens (B, N, C) in float32, each of length 1."""
    tokens = tokens.float()
    length: Tensor = tokens.square().sum(dim=-1, keepdim=True).sqrt()
    return tokens / length.clamp_min(1e-12)


def _logits(query: Tensor, key: Tensor) -> Tensor:
    # Indices carry no gradient, so neither need the scores; autocast would round the product.
    query, key = query.detach().float(), key.detach().float()
    with full_precision(query.device.type):
        logits: Tensor = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        return logits


def _probability(query: Tensor, key: Tensor) -> Tensor:
    return torch.softmax(_logits(query, key), dim=-1)


def full_precision(device: str) -> contextlib.AbstractContextManager[object]:
    """Return a context in which products are not rounded by autocast."""
    # Entered only where autocast is on, as it would leave a marker in an exported graph.
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()
