"""The gradient of local-global attention, in PyTorch operators that compile too."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from prunus.models.layers.local_global.math import (
    Branch,
    Operands,
    gather_windows,
    global_branch,
    local_branch,
    restore_tokens,
    safe_softmax,
    scores,
    widen,
    with_batch_axis,
)


class Gradients(NamedTuple):
    """Gradients of the differentiable operands; None where the combination does not read one."""

    q: Tensor
    k: Tensor | None
    v: Tensor | None
    bias_l: Tensor | None
    kg: Tensor | None
    vg: Tensor | None
    bias_g: Tensor | None
    gate: Tensor | None


def gradients(ops: Operands, grad: Tensor) -> Gradients:
    """Differentiate Y with respect to its operands, given dLoss/dY (B, N, C).

    With P the softmax's weights and dP = dY v^T: dS = P * (dP - sum(P * dP)); from there
    dq = scale * dS k, dk = scale * dS^T q, dv = P^T dY, dbias = dS summed over what broadcasts.
    """
    wide = widen(ops)
    query = gather_windows(wide.q, wide.q_index, wide.num_heads)
    out = gather_windows(grad.to(wide.q.dtype), wide.q_index, wide.num_heads)
    near = local_branch(wide) if wide.local else None
    far = global_branch(wide) if wide.globals else None
    grad_gate: Tensor | None = None
    if near is not None and far is not None and wide.combine == "joint":
        count = near.keys.shape[3]
        logits = torch.cat([scores(query, branch, wide.scale) for branch in (near, far)], dim=-1)
        weights, _ = safe_softmax(logits)
        pushed = torch.cat([out @ branch.values.transpose(-1, -2) for branch in (near, far)], -1)
        slope = _softmax_slope(weights, pushed)
        near_part = (weights[..., :count], slope[..., :count], out)
        far_part = (weights[..., count:], slope[..., count:], out)
    else:
        gated = out * with_batch_axis(wide.gate) if wide.combine == "sum" else out
        near_part = _branch_part(query, near, out, wide.scale)
        far_part = _branch_part(query, far, gated, wide.scale)
        if far is not None and wide.combine == "sum":
            read = (out * (far_part[0] @ far.values)).sum(dim=-1, keepdim=True)
            grad_gate = _reduce_to(read, wide.gate).to(ops.gate.dtype)
    near_grads = _branch_grads(query, near, near_part, wide.scale)
    far_grads = _branch_grads(query, far, far_part, wide.scale)
    grad_query = sum(part[0] for part in (near_grads, far_grads) if part is not None)
    assert isinstance(grad_query, Tensor)  # at least one branch is always read
    return Gradients(
        q=restore_tokens(grad_query, wide.o_index).to(ops.q.dtype),
        k=None if near_grads is None else _scatter(near_grads[1], wide, ops.k),
        v=None if near_grads is None else _scatter(near_grads[2], wide, ops.v),
        bias_l=None if near_grads is None else _reduce_to(near_grads[3], ops.bias_l),
        kg=None if far_grads is None else _merge(far_grads[1], ops.kg),
        vg=None if far_grads is None else _merge(far_grads[2], ops.vg),
        bias_g=None if far_grads is None else _reduce_to(far_grads[3], ops.bias_g),
        gate=grad_gate,
    )


_Part = tuple[Tensor, Tensor, Tensor]


def _softmax_slope(weights: Tensor, pushed: Tensor) -> Tensor:
    return weights * (pushed - (weights * pushed).sum(dim=-1, keepdim=True))


def _branch_part(query: Tensor, branch: Branch | None, out: Tensor, scale: float) -> _Part:
    """Return (weights, dS, dY) of a branch with a softmax of its own."""
    if branch is None:
        return query, query, query
    weights, _ = safe_softmax(scores(query, branch, scale))
    return weights, _softmax_slope(weights, out @ branch.values.transpose(-1, -2)), out


def _branch_grads(
    query: Tensor, branch: Branch | None, part: _Part, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Return (dq, dk, dv, dS), all per window: (B, W, h, ., .)."""
    if branch is None:
        return None
    weights, slope, out = part
    turned = slope.transpose(-1, -2)
    return (
        scale * (slope @ branch.keys),
        scale * (turned @ query),
        weights.transpose(-1, -2) @ out,
        slope,
    )


def _scatter(windows: Tensor, ops: Operands, like: Tensor) -> Tensor:
    """Add (B, W, h, Lk, d) up at the positions of `kv_index`: (B, Nk, C)."""
    rows = windows.transpose(2, 3).flatten(3).flatten(1, 2)
    out = torch.zeros(like.shape, dtype=windows.dtype, device=windows.device)
    return out.index_add(1, ops.kv_index.reshape(-1), rows).to(like.dtype)


def _merge(windows: Tensor, like: Tensor) -> Tensor:
    """Return (B, W or 1, G, C) of (B, W, h, G, d)."""
    merged = windows.transpose(2, 3).flatten(3)
    return _reduce_to(merged, like)


def _reduce_to(full: Tensor, like: Tensor) -> Tensor:
    """Sum a gradient over the axes along which its operand was broadcast."""
    return (
        full.sum_to_size(with_batch_axis(like).shape if like.dim() != full.dim() else like.shape)
        .reshape(like.shape)
        .to(like.dtype)
    )
