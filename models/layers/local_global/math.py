"""The arithmetic of local-global attention in plain PyTorch: the definition and a fast path.

Shapes in this file: B pictures, W windows, h heads, d channels per head, Lq queries and Lk keys
per window, G global tokens. `Operands` holds what the operator takes; see
`local_global_attention.py` for their meaning.

A key whose bias lies below `MASKED_BELOW` is masked: it takes no weight whatever its score. A row
without any other key gives zeros. Masks are written as `MASK_VALUE`, which half precision holds
(minus infinity is understood too).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

Combine = Literal["joint", "sum", "local", "global"]
MASK_VALUE = -30000.0
MASKED_BELOW = -10000.0


@dataclass(frozen=True, slots=True)
class Operands:
    """The operator's inputs and attributes, already checked."""

    q: Tensor
    k: Tensor
    v: Tensor
    q_index: Tensor
    kv_index: Tensor
    bias_l: Tensor
    kg: Tensor
    vg: Tensor
    bias_g: Tensor
    gate: Tensor
    o_index: Tensor
    num_heads: int
    scale: float
    combine: Combine

    @property
    def local(self) -> bool:
        """Whether the window's keys are read."""
        return self.combine != "global"

    @property
    def globals(self) -> bool:
        """Whether the global tokens are read."""
        return self.combine != "local"


class Branch(NamedTuple):
    """One softmax's worth of keys, per window and head.

    Attributes:
        keys: (B, W or 1, h, M, d).
        values: (B, W or 1, h, M, d).
        bias: Broadcasts to (B, W, h, Lq, M).
    """

    keys: Tensor
    values: Tensor
    bias: Tensor


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that sums and softmax use: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """Return (B, W, h, L, d) of (B, W, L, C)."""
    batch, windows, length, channels = tokens.shape
    return tokens.reshape(batch, windows, length, heads, channels // heads).transpose(2, 3)


def gather_windows(tokens: Tensor, index: Tensor, heads: int) -> Tensor:
    """Return (B, W, h, L, d) of tokens (B, N, C) and positions (W, L)."""
    picked = tokens.index_select(1, index.reshape(-1))
    return split_heads(picked.reshape(tokens.shape[0], *index.shape, -1), heads)


def restore_tokens(windows: Tensor, o_index: Tensor) -> Tensor:
    """Return (B, N, C) of (B, W, h, Lq, d): the inverse of gathering every query once."""
    flat = windows.transpose(2, 3).flatten(3).flatten(1, 2)
    return flat.index_select(1, o_index)


def with_batch_axis(bias: Tensor) -> Tensor:
    """Return a bias with its batch axis, which `bias_l` and neutral tensors leave out."""
    return bias if bias.dim() == 5 else bias.unsqueeze(0)


def local_branch(ops: Operands) -> Branch:
    """Gather the windows' keys and values."""
    keys = gather_windows(ops.k, ops.kv_index, ops.num_heads)
    values = keys if ops.v is ops.k else gather_windows(ops.v, ops.kv_index, ops.num_heads)
    return Branch(keys, values, with_batch_axis(ops.bias_l))


def global_branch(ops: Operands) -> Branch:
    """Split the global tokens into heads."""
    keys = split_heads(ops.kg, ops.num_heads)
    values = keys if ops.vg is ops.kg else split_heads(ops.vg, ops.num_heads)
    return Branch(keys, values, with_batch_axis(ops.bias_g))


def scores(query: Tensor, branch: Branch, scale: float) -> Tensor:
    """Return scale * q.k + bias (B, W, h, Lq, M), minus infinity where the bias masks."""
    raw = scale * (query @ branch.keys.transpose(-1, -2)) + branch.bias
    return raw.masked_fill(branch.bias < MASKED_BELOW, -torch.inf)


def safe_softmax(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return softmax over the last axis and its log-sum-exp; a row of -inf gives zeros and -inf."""
    top = logits.amax(dim=-1, keepdim=True).clamp(min=torch.finfo(logits.dtype).min)
    weights = (logits - top).exp()
    total = weights.sum(dim=-1, keepdim=True)
    lse = (top + total.log()).squeeze(-1)
    return weights / total.clamp(min=torch.finfo(logits.dtype).tiny), lse


def widen(ops: Operands) -> Operands:
    """Return the operands in the accumulation dtype; shared tensors stay shared."""
    dtype = accumulation_dtype(ops.q.dtype)
    k, kg = ops.k.to(dtype), ops.kg.to(dtype)
    return Operands(
        q=ops.q.to(dtype),
        k=k,
        v=k if ops.v is ops.k else ops.v.to(dtype),
        q_index=ops.q_index,
        kv_index=ops.kv_index,
        bias_l=ops.bias_l.to(dtype),
        kg=kg,
        vg=kg if ops.vg is ops.kg else ops.vg.to(dtype),
        bias_g=ops.bias_g.to(dtype),
        gate=ops.gate.to(dtype),
        o_index=ops.o_index,
        num_heads=ops.num_heads,
        scale=ops.scale,
        combine=ops.combine,
    )


def reference(ops: Operands) -> tuple[Tensor, Tensor]:
    """Compute the definition, term by term.

    joint:  p = softmax([s; t]),  y = sum_m p_m v_m + sum_n p_(Lk+n) vg_n
    sum:    y = softmax(s) v + gate * softmax(t) vg
    local:  y = softmax(s) v
    global: y = softmax(t) vg
    with s = scale * q.k + bias_l and t = scale * q.kg + bias_g.

    Returns:
        Y (B, N, C) in q's dtype, and the log-sum-exp (B, h, N) of the row's softmax in the
        accumulation dtype; of `sum`'s two softmaxes it is the local one.
    """
    wide = widen(ops)
    query = gather_windows(wide.q, wide.q_index, wide.num_heads)
    if wide.combine == "joint":
        near, far = local_branch(wide), global_branch(wide)
        s, t = (scores(query, branch, wide.scale) for branch in (near, far))
        weights, lse = safe_softmax(torch.cat((s, t), dim=-1))
        count = s.shape[-1]
        mixed = weights[..., :count] @ near.values + weights[..., count:] @ far.values
    else:
        branch = local_branch(wide) if wide.local else global_branch(wide)
        weights, lse = safe_softmax(scores(query, branch, wide.scale))
        mixed = weights @ branch.values
    if wide.combine == "sum":
        branch = global_branch(wide)
        weights, _ = safe_softmax(scores(query, branch, wide.scale))
        mixed = mixed + with_batch_axis(wide.gate) * (weights @ branch.values)
    rows = lse.transpose(1, 2).flatten(2).index_select(2, wide.o_index)
    return restore_tokens(mixed, wide.o_index).to(ops.q.dtype), rows


def fused(ops: Operands) -> Tensor:
    """Compute Y (B, N, C) through `scaled_dot_product_attention`, windows as its batch."""
    query = gather_windows(ops.q, ops.q_index, ops.num_heads)
    if ops.combine == "joint":
        mixed = _attend(query, _concatenate(local_branch(ops), global_branch(ops), query), ops)
    else:
        mixed = _attend(query, local_branch(ops) if ops.local else global_branch(ops), ops)
    if ops.combine == "sum":
        mixed = mixed + with_batch_axis(ops.gate) * _attend(query, global_branch(ops), ops)
    return restore_tokens(mixed, ops.o_index)


def _concatenate(near: Branch, far: Branch, query: Tensor) -> Branch:
    windows = query.shape[1]
    keys, values = (
        torch.cat((a, b.expand(-1, windows, -1, -1, -1)), dim=3)
        for a, b in ((near.keys, far.keys), (near.values, far.values))
    )
    if _is_zero(near.bias) and _is_zero(far.bias):
        return Branch(keys, values, near.bias)
    parts = [(branch.bias, branch.keys.shape[3]) for branch in (near, far)]
    lead = torch.broadcast_shapes(*(bias.shape[:4] for bias, _ in parts))
    bias = torch.cat([bias.expand(*lead, count) for bias, count in parts], dim=-1)
    return Branch(keys, values, bias)


def _is_zero(bias: Tensor) -> bool:
    """Tell whether a bias is the neutral scalar; reading it is free on the CPU only."""
    return bias.numel() == 1 and bias.device.type == "cpu" and bias.item() == 0.0


def _attend(query: Tensor, branch: Branch, ops: Operands) -> Tensor:
    """Return softmax(scale * q k^T + bias) v as (B, W, h, Lq, d)."""
    shape = query.shape
    windows, rows = shape[1], shape[3]
    keys, values = (
        part.expand(-1, windows, -1, -1, -1).flatten(0, 1) for part in (branch.keys, branch.values)
    )
    query = query.flatten(0, 1)
    attend = functional.scaled_dot_product_attention
    if _is_zero(branch.bias):
        return attend(query, keys, values, scale=ops.scale).reshape(shape)
    masked = branch.bias < MASKED_BELOW
    bias = branch.bias.masked_fill(masked, MASK_VALUE)
    full = (*shape[:2], bias.shape[2], rows, keys.shape[2])
    shared = bias.shape[:2] == (1, 1)
    mask = bias[0].expand(1, *full[2:]) if shared else bias.expand(full).flatten(0, 1)
    out = attend(query, keys, values, attn_mask=mask, scale=ops.scale).reshape(shape)
    return out.masked_fill(masked.all(dim=-1, keepdim=True), 0.0)
