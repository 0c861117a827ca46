"""Local-global attention as one Triton kernel: one pass over the keys with a running maximum.

A program computes `tile_rows` queries of one window and one head. It walks over the window's local
keys, then over the global ones, `tile_keys` at a time, and never writes a score to memory (online
softmax: Milakov and Gimelshein 2018, section 3; Dao et al. 2022, algorithm 1). Tokens are gathered
by the index tables while they are loaded, so windows are never materialised.

With s_m = scale q.k_m + bias_l, t_n = scale q.kg_n + bias_g:

    local   y = softmax(s) V           global  y = softmax(t) Vg
    joint   y = softmax([s, t]) [V, Vg]    sum  y = softmax(s) V + gate softmax(t) Vg

The launcher expresses the four through three numbers: ``local`` has no global keys, ``global`` no
local ones, ``sum`` sets `separate`. A key whose bias lies below -10000 is masked: it takes no
weight whatever its score. A row without any other key gives zeros (in ``sum``: in that branch).

Importing this file needs triton; nothing of `prunus.runtime` does so by itself.
"""

# A kernel takes what the launch passes, in one long list, and its parameters have the compiler's
# types: neither can be written as Python annotations.
# ruff: noqa: ANN001, ANN201, ANN202, PLR0915, PLR0917
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _product(left, right, start, precision: tl.constexpr):
    """Return start + left right, summed in float32.

    ``widened`` is for the interpreter, which cannot multiply bfloat16: the products are the same.
    """
    if precision == "widened":
        wide = left.to(tl.float32)
        result = tl.dot(wide, right.to(tl.float32), start, input_precision="ieee")
    else:
        result = tl.dot(left, right, start, input_precision=precision)
    return result


@triton.jit
def _absorb(scores, values, peak, total, mixed, precision: tl.constexpr):
    """Add a tile of scores (R, N), in powers of two, and its values (N, D) to the running sums."""
    new_peak = tl.maximum(peak, tl.max(scores, 1))
    # A row that has seen nothing but minus infinity: its maximum must not be subtracted.
    base = tl.where(new_peak == float("-inf"), 0.0, new_peak)
    weights = tl.exp2(scores - base[:, None])
    keep = tl.exp2(peak - base)
    total = total * keep + tl.sum(weights, 1)
    mixed = mixed * keep[:, None]
    mixed = _product(weights.to(values.dtype), values, mixed, precision)
    return new_peak, total, mixed


@triton.jit
def _biased(scores, bias, row_at, key_stride, keys, present):
    """Add a bias tile (R, N) to scores in powers of two; absent and masked keys get -inf.

    A stride of 0 means that all keys of a row share one value.
    """
    if key_stride != 0:
        tile = tl.load(bias + row_at[:, None] + keys[None, :], mask=present, other=0.0)
        added = tile.to(tl.float32)
    else:
        row = tl.load(bias + row_at).to(tl.float32)
        added = tl.broadcast_to(row[:, None], scores.shape)
    seen = present & (added >= -10000.0)
    return tl.where(seen, scores + added * 1.4426950408889634, float("-inf"))


@triton.jit
def local_global_attention(
    q,
    k,
    v,
    q_index,
    kv_index,
    bias_l,
    kg,
    vg,
    bias_g,
    gate,
    y,
    scale,
    separate,
    window_queries,
    window_keys,
    global_keys,
    query_tokens,
    key_tokens,
    heads,
    head_dim,
    channels,
    index_words,
    local_by_window,
    local_by_head,
    local_by_query,
    local_by_key,
    global_by_batch,
    global_by_window,
    global_by_head,
    global_by_query,
    global_by_key,
    gate_by_batch,
    gate_by_window,
    gate_by_head,
    gate_by_query,
    tokens_by_batch,
    tokens_by_window,
    tile_rows: tl.constexpr,
    tile_keys: tl.constexpr,
    tile_dim: tl.constexpr,
    precision: tl.constexpr,
):
    """Compute one tile of queries; grid (windows * row tiles * heads, batch), heads fastest.

    Tensors are contiguous: q and y (B, query_tokens, channels), k and v (B, key_tokens, channels),
    kg and vg (B or 1, windows or 1, global_keys, channels), index tables (windows, ...) of
    `index_words` 32-bit words per entry (2: the low words of int64). Each ``x_by_axis`` is the
    stride of that axis in elements, 0 where the tensor is broadcast. `scale` includes log2(e).
    """
    head = tl.program_id(0) % heads
    rest = tl.program_id(0) // heads
    row_tiles = tl.cdiv(window_queries, tile_rows)
    window = rest // row_tiles
    batch = tl.program_id(1)
    wide_batch = batch.to(tl.int64)

    dims = tl.arange(0, tile_dim)
    dim_there = dims < head_dim
    columns = head * head_dim + dims
    rows = (rest % row_tiles) * tile_rows + tl.arange(0, tile_rows)
    row_there = rows < window_queries
    # Rows past the end repeat the last one, so that every address computed from them is valid.
    rows = tl.minimum(rows, window_queries - 1)
    query_at = tl.load(q_index + (window * window_queries + rows) * index_words)
    query_offsets = query_at[:, None] * channels + columns[None, :]
    query_there = row_there[:, None] & dim_there[None, :]
    queries = tl.load(
        q + wide_batch * query_tokens * channels + query_offsets, mask=query_there, other=0.0
    )

    blank = tl.zeros([tile_rows, tile_keys], tl.float32)
    peak = tl.full([tile_rows], float("-inf"), tl.float32)
    total = tl.zeros([tile_rows], tl.float32)
    mixed = tl.zeros([tile_rows, tile_dim], tl.float32)

    row_at = window * local_by_window + head * local_by_head + rows * local_by_query
    key_base = wide_batch * key_tokens * channels
    for start in tl.range(0, window_keys, tile_keys):
        keys = start + tl.arange(0, tile_keys)
        there = keys < window_keys
        key_at = tl.load(
            kv_index + (window * window_keys + keys) * index_words, mask=there, other=0
        )
        offsets = key_at[:, None] * channels + columns[None, :]
        mask = there[:, None] & dim_there[None, :]
        key_tile = tl.load(k + key_base + offsets, mask=mask, other=0.0)
        scores = _product(queries, tl.trans(key_tile), blank, precision) * scale
        present = row_there[:, None] & there[None, :]
        scores = _biased(scores, bias_l, row_at, local_by_key, keys, present)
        value_tile = tl.load(v + key_base + offsets, mask=mask, other=0.0)
        peak, total, mixed = _absorb(scores, value_tile, peak, total, mixed, precision)

    first = tl.zeros([tile_rows, tile_dim], tl.float32)
    if separate != 0:
        first = mixed / tl.where(total > 0.0, total, 1.0)[:, None]
        peak = tl.full([tile_rows], float("-inf"), tl.float32)
        total = tl.zeros([tile_rows], tl.float32)
        mixed = tl.zeros([tile_rows, tile_dim], tl.float32)

    row_at = batch * global_by_batch + window * global_by_window
    row_at += head * global_by_head + rows * global_by_query
    token_base = wide_batch * tokens_by_batch + window * tokens_by_window
    for start in tl.range(0, global_keys, tile_keys):
        keys = start + tl.arange(0, tile_keys)
        there = keys < global_keys
        offsets = keys[:, None] * channels + columns[None, :]
        mask = there[:, None] & dim_there[None, :]
        key_tile = tl.load(kg + token_base + offsets, mask=mask, other=0.0)
        scores = _product(queries, tl.trans(key_tile), blank, precision) * scale
        present = row_there[:, None] & there[None, :]
        scores = _biased(scores, bias_g, row_at, global_by_key, keys, present)
        value_tile = tl.load(vg + token_base + offsets, mask=mask, other=0.0)
        peak, total, mixed = _absorb(scores, value_tile, peak, total, mixed, precision)

    result = mixed / tl.where(total > 0.0, total, 1.0)[:, None]
    if separate != 0:
        gate_at = batch * gate_by_batch + window * gate_by_window
        gate_at += head * gate_by_head
        weight = tl.load(gate + gate_at + rows * gate_by_query).to(tl.float32)
        result = first + weight[:, None] * result
    tl.store(
        y + wide_batch * query_tokens * channels + query_offsets,
        result.to(y.dtype.element_ty),
        mask=query_there,
    )


# Whether triton was told (TRITON_INTERPRET=1) to run kernels on the CPU.
INTERPRETED = not isinstance(local_global_attention, triton.runtime.JITFunction)
