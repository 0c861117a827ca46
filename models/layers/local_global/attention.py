"""Local-global attention: windows of tokens that also look at a few global tokens, one operator.

The windowed and global-token attention of many networks is one computation whose partition is
*data*: a table says which tokens share a window, another which tokens their keys come from. So
2-D windows, shifted windows, overlapping key windows, audio chunks, and windows of pruned tokens
need no code of their own. Window attention with global tokens in one softmax is that of Kinfu &
Vidal (arXiv 2503.00232, joint tokens as the globals) and STViT (arXiv 2303.08810); shifted windows
are Swin's (arXiv 2103.14030); global-only attention is EDAFormer's (arXiv 2407.17261).

`prunus::local_global_attention` is a registered PyTorch operator: it runs, differentiates,
compiles, and exports as one ONNX node `prunus::LocalGlobalAttention`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prunus.models.layers.local_global import op as attention_op  # noqa: F401 - registers the operator
from prunus.models.layers.local_global.checks import check_heads
from prunus.models.layers.local_global.index import AttentionIndex
from prunus.models.layers.local_global.math import Combine


def local_global_attention(  # noqa: PLR0917 - the operator's signature
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_index: Tensor,
    kv_index: Tensor,
    bias_l: Tensor,
    kg: Tensor,
    vg: Tensor,
    bias_g: Tensor,
    gate: Tensor,
    o_index: Tensor,
    *,
    num_heads: int,
    scale: float,
    combine: Combine,
) -> Tensor:
    """Attend from each query to the keys of its window, to global tokens, or to both.

    Inputs that `combine` does not read may be neutral: zeros of one element per axis. Biases and
    gates are cast to q's dtype; softmax and sums run in float32 (float64 for float64 inputs).

    Args:
        q: (B, Nq, C) queries, already projected; float.
        k: (B, Nk, C) keys of the windows.
        v: (B, Nk, C) values of the windows.
        q_index: (W, Lq) integer positions in q; every query exactly once.
        kv_index: (W, Lk) integer positions in k and v; repeats allowed.
        bias_l: (1 or W, 1 or h, 1 or Lq, 1 or Lk) added to the window's scores.
        kg: (B, 1 or W, G, C) keys of the global tokens, shared or one set per window.
        vg: (B, 1 or W, G, C) values of the global tokens.
        bias_g: (1 or B, 1 or W, 1 or h, 1 or Lq, 1 or G) added to the globals' scores, or
            (1, 1, 1, 1).
        gate: (1 or B, 1 or W, 1 or h, 1 or Lq, 1) factor of the global part, read by ``sum``, or
            (1, 1, 1, 1).
        o_index: (Nq,) inverse of the flattened q_index.
        num_heads: h; divides C.
        scale: Factor of the dot products.
        combine: ``joint`` (one softmax over both), ``sum`` (two softmaxes, the second times
            `gate`), ``local`` or ``global``.

    Returns:
        (B, Nq, C) in q's dtype. A key whose bias lies below -10000 takes no weight; a row without
        any other key is zero.

    Raises:
        TensorError: a shape does not fit, a position is out of range, a query is not covered once.
        UsageError: unknown combination, or heads that do not divide C.
    """
    bias_l, kg, vg, bias_g, gate = _same_dtype(q, bias_l, kg, vg, bias_g, gate)
    out: Tensor = torch.ops.prunus.local_global_attention(
        q, k, v, q_index, kv_index, bias_l, kg, vg, bias_g, gate, o_index,
        num_heads=num_heads, scale=scale, combine=combine,
    )  # fmt: skip
    return out


def _same_dtype(q: Tensor, *others: Tensor) -> list[Tensor]:
    return [other if other.dtype == q.dtype else other.to(q.dtype) for other in others]


def window_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: AttentionIndex,
    *,
    num_heads: int,
    scale: float | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Attend within windows.

    Args:
        q: (B, Nq, C).
        k: (B, Nk, C).
        v: (B, Nk, C).
        index: The partition.
        num_heads: h.
        scale: Factor of the dot products; d ** -0.5 when None.
        bias: (1 or W, 1 or h, 1 or Lq, 1 or Lk), added to the partition's own mask.

    Returns:
        (B, Nq, C).
    """
    empty = q.new_zeros(1, 1, 1, 1)
    return local_global_attention(
        q, k, v, index.q_index, index.kv_index, index.bias(q, bias), empty, empty, empty, empty,
        index.o_index, num_heads=num_heads, scale=_scale(q, num_heads, scale), combine="local",
    )  # fmt: skip


def joint_attention(  # noqa: PLR0917 - five tensors and their partition
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kg: Tensor,
    vg: Tensor,
    index: AttentionIndex,
    *,
    num_heads: int,
    scale: float | None = None,
    bias: Tensor | None = None,
    bias_g: Tensor | None = None,
) -> Tensor:
    """Attend to the window's keys and to global tokens in one softmax.

    Args:
        q: (B, Nq, C).
        k: (B, Nk, C).
        v: (B, Nk, C).
        kg: (B, G, C) shared global tokens or (B, W, G, C), a set per window.
        vg: As kg.
        index: The partition.
        num_heads: h.
        scale: Factor of the dot products; d ** -0.5 when None.
        bias: (1 or W, 1 or h, 1 or Lq, 1 or Lk), added to the partition's own mask.
        bias_g: (1 or B, 1 or W, 1 or h, 1 or Lq, 1 or G), added to the globals' scores.

    Returns:
        (B, Nq, C).
    """
    empty = q.new_zeros(1, 1, 1, 1)
    return local_global_attention(
        q, k, v, index.q_index, index.kv_index, index.bias(q, bias), _per_window(kg),
        _per_window(vg), empty if bias_g is None else bias_g, empty, index.o_index,
        num_heads=num_heads, scale=_scale(q, num_heads, scale), combine="joint",
    )  # fmt: skip


def gated_attention(  # noqa: PLR0917 - five tensors and their partition
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kg: Tensor,
    vg: Tensor,
    index: AttentionIndex,
    *,
    num_heads: int,
    gate: Tensor | None = None,
    scale: float | None = None,
    bias: Tensor | None = None,
    bias_g: Tensor | None = None,
) -> Tensor:
    """Add attention to global tokens, times a gate, to window attention: two softmaxes.

    Args:
        q: (B, Nq, C).
        k: (B, Nk, C).
        v: (B, Nk, C).
        kg: (B, G, C) shared global tokens or (B, W, G, C), a set per window.
        vg: As kg.
        index: The partition.
        num_heads: h.
        gate: (1 or B, 1 or W, 1 or h, 1 or Lq, 1) factor of the global part; 1 when None.
        scale: Factor of the dot products; d ** -0.5 when None.
        bias: (1 or W, 1 or h, 1 or Lq, 1 or Lk), added to the partition's own mask.
        bias_g: (1 or B, 1 or W, 1 or h, 1 or Lq, 1 or G), added to the globals' scores.

    Returns:
        (B, Nq, C).
    """
    empty = q.new_zeros(1, 1, 1, 1)
    return local_global_attention(
        q, k, v, index.q_index, index.kv_index, index.bias(q, bias), _per_window(kg),
        _per_window(vg), empty if bias_g is None else bias_g,
        q.new_ones(1, 1, 1, 1) if gate is None else gate, index.o_index,
        num_heads=num_heads, scale=_scale(q, num_heads, scale), combine="sum",
    )  # fmt: skip


def global_attention(
    q: Tensor,
    kg: Tensor,
    vg: Tensor,
    *,
    num_heads: int,
    scale: float | None = None,
    bias_g: Tensor | None = None,
    index: AttentionIndex | None = None,
) -> Tensor:
    """Attend to global tokens only; keys and values may be one tensor.

    Args:
        q: (B, N, C).
        kg: (B, G, C) shared global tokens or (B, W, G, C), a set per window of `index`.
        vg: As kg.
        num_heads: h.
        scale: Factor of the dot products; d ** -0.5 when None.
        bias_g: (1 or B, 1 or W, 1 or h, 1 or Lq, 1 or G), added to the scores.
        index: Which queries share a set of global tokens; all of them when None.

    Returns:
        (B, N, C).
    """
    if index is None:  # built of operators, so that it becomes a constant of a traced graph
        order = torch.arange(q.shape[1], device=q.device)
        q_index, o_index = order.unsqueeze(0), order
    else:
        q_index, o_index = index.q_index, index.o_index
    keys = _per_window(kg)
    values = keys if vg is kg else _per_window(vg)
    empty = q.new_zeros(1, 1, 1, 1)
    return local_global_attention(
        q, empty[0], empty[0], q_index, q_index[:, :1], empty, keys, values,
        empty if bias_g is None else bias_g, empty, o_index,
        num_heads=num_heads, scale=_scale(q, num_heads, scale), combine="global",
    )  # fmt: skip


def _per_window(tokens: Tensor) -> Tensor:
    return tokens.unsqueeze(1) if tokens.dim() == 3 else tokens


def _scale(q: Tensor, num_heads: int, scale: float | None) -> float:
    if scale is not None:
        return scale
    check_heads(q.shape[-1], num_heads)
    return float((q.shape[-1] // num_heads) ** -0.5)
