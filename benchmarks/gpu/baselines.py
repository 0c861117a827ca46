"""What the local-global attention kernel is measured against: the same result from PyTorch's parts.

Each function takes the operator's inputs by name and computes the ``joint`` combination. B0 is the
decomposed graph, B1 its attention fused with the windows as a batch, which is what a graph with
ONNX's `Attention` node would give; FlexAttention takes windows as a block mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Inputs = Mapping[str, Tensor]


def _windows(tokens: Tensor, index: Tensor, heads: int) -> Tensor:
    """Return (B, W, h, L, d) of tokens (B, N, C) and positions (W, L)."""
    picked = tokens[:, index.reshape(-1)]
    batch, windows, length = tokens.shape[0], *index.shape
    return picked.view(batch, windows, length, heads, -1).transpose(2, 3)


def _keys(x: Inputs, heads: int) -> tuple[Tensor, Tensor]:
    """Return local and global keys behind each other, and values: (B, W, h, Lk + G, d)."""
    batch, windows = x["q"].shape[0], x["q_index"].shape[0]
    joined = []
    for near, far in (("k", "kg"), ("v", "vg")):
        local = _windows(x[near], x["kv_index"], heads)
        shared = x[far].view(batch, x[far].shape[1], -1, heads, local.shape[-1]).transpose(2, 3)
        joined.append(torch.cat((local, shared.expand(-1, windows, -1, -1, -1)), dim=3))
    return joined[0], joined[1]


def _bias(x: Inputs) -> Tensor:
    """Return both biases behind each other: (1, 1, h, Lq, Lk + G)."""
    near, far = x["bias_l"][None], x["bias_g"]
    queries, heads = x["q_index"].shape[1], x["bias_l"].shape[1]
    near = near.expand(1, 1, heads, queries, x["kv_index"].shape[1])
    return torch.cat((near, far.expand(1, 1, heads, queries, x["kg"].shape[2])), dim=-1)


def _restore(y: Tensor, x: Inputs) -> Tensor:
    batch, _, channels = x["q"].shape
    return y.transpose(2, 3).reshape(batch, -1, channels)[:, x["o_index"]]


def decomposed(x: Inputs, heads: int, scale: float) -> Tensor:
    """B0: gather, product, softmax, product, scatter, each an operator of its own."""
    query = _windows(x["q"], x["q_index"], heads)
    keys, values = _keys(x, heads)
    scores = scale * (query @ keys.transpose(-1, -2)) + _bias(x)
    return _restore(torch.softmax(scores, dim=-1) @ values, x)


def windows_as_batch(x: Inputs, heads: int, scale: float) -> Tensor:
    """B1: gather the windows, one fused attention over them as a batch, scatter back."""
    query = _windows(x["q"], x["q_index"], heads)
    keys, values = _keys(x, heads)
    shape = query.shape
    mask = _bias(x)[0].expand(1, -1, -1, -1)
    fused = functional.scaled_dot_product_attention(
        query.flatten(0, 1), keys.flatten(0, 1), values.flatten(0, 1), mask, scale=scale
    )
    return _restore(fused.view(shape), x)


def flex(x: Inputs, heads: int, scale: float, compiled: bool = True) -> Callable[[], Tensor]:
    """Return FlexAttention over all tokens with a block mask of windows, ready to be called.

    Applies where each window reads its own tokens (q_index equals kv_index). Tokens are put in the
    order of windows first, since blocks of a mask are contiguous.

    Raises:
        ValueError: the windows read other tokens than their own.
    """
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    if not torch.equal(x["q_index"], x["kv_index"]):
        raise ValueError("windows that read other tokens than their own")
    batch, count, channels = x["q"].shape
    side, globals_ = x["q_index"].shape[1], x["kg"].shape[2]
    near, far = x["bias_l"][0], x["bias_g"][0, 0, :, 0]

    def seen(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return (kv >= count) | (q // side == kv // side)

    def biased(score: Tensor, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        local = near[h, q % side, kv % side]
        return score + torch.where(kv >= count, far[h, (kv - count).clamp(min=0)], local)

    blocks: Any = create_block_mask(
        seen, None, None, count, count + globals_, device=str(x["q"].device)
    )
    attend: Any = torch.compile(flex_attention) if compiled else flex_attention
    order = x["q_index"].reshape(-1)

    def heads_of(tokens: Tensor) -> Tensor:
        return tokens.view(batch, -1, heads, channels // heads).transpose(1, 2)

    def run() -> Tensor:
        query = heads_of(x["q"][:, order])
        keys, values = (
            heads_of(torch.cat((x[n][:, order], x[g][:, 0]), dim=1))
            for n, g in (("k", "kg"), ("v", "vg"))
        )
        y = attend(query, keys, values, score_mod=biased, block_mask=blocks, scale=scale)
        return y.transpose(1, 2).reshape(batch, count, channels)[:, x["o_index"]]

    return run
