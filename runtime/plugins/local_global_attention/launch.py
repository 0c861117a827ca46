"""Run the kernel on PyTorch tensors: on a GPU, or on the CPU by Triton's interpreter.

The engines do not come this way (``csrc/`` launches compiled kernels); tests and measurements do.
The interpreter is chosen by the variable ``TRITON_INTERPRET=1``, set before triton is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunus.runtime.errors import TensorError
from prunus.runtime.plugins.local_global_attention.geometry import INPUTS, LOG2_E, geometry
from prunus.runtime.plugins.local_global_attention.tiles import (
    MAX_HEAD_DIM,
    VECTOR,
    Tile,
    choose_tile,
    precision,
)

_DTYPES = {"torch.float16": "fp16", "torch.bfloat16": "bf16", "torch.float32": "fp32"}
_WORDS = {"torch.int32": 1, "torch.int64": 2}
_ACTIVATIONS = ("q", "k", "v", "kg", "vg")


def attend(
    inputs: Mapping[str, Any],
    *,
    heads: int,
    scale: float,
    combine: str,
    architecture: int = 80,
    tile: Tile | None = None,
) -> Any:
    """Compute local-global attention.

    Args:
        inputs: Tensors by the names of `geometry.INPUTS` (``o_index`` is not read), all floating
            point ones of one dtype, tables int32 or int64; those that `combine` does not read may
            be any tensor.
        heads: Number of heads h; the head dimension C / h is at most 128.
        scale: Factor of the dot products.
        combine: ``joint``, ``sum``, ``local`` or ``global``.
        architecture: Compute capability times ten; decides how float32 products are formed.
        tile: Tile sizes; None: those that an engine would use.

    Returns:
        (B, Nq, C) tensor of q's dtype and device.

    Raises:
        TensorError: a shape or dtype does not fit.
        UsageError: unknown combination, or heads that do not divide the channels.
    """
    from prunus.runtime.plugins.local_global_attention.kernel import (
        INTERPRETED,
        local_global_attention,
    )

    problem = geometry({n: inputs[n].shape for n in INPUTS if n in inputs}, heads, combine)
    tensors = {n: inputs[n].contiguous() for n in INPUTS if n in inputs and n != "o_index"}
    q = tensors["q"]
    dtype = _dtype(q)
    words = {_words(n, tensors[n]) for n in ("q_index", "kv_index")} if problem.keys else set()
    words |= {_words("q_index", tensors["q_index"])}
    if len(words) != 1:
        raise TensorError("q_index and kv_index have different integer types; expected one.")
    if problem.head_dim > MAX_HEAD_DIM:
        raise TensorError(f"The head dimension is {problem.head_dim}; expected at most 128.")
    aligned = all(tensors[n].data_ptr() % 16 == 0 for n in _ACTIVATIONS)
    aligned = aligned and problem.head_dim % VECTOR == 0
    tile = tile or choose_tile(
        problem.queries, problem.keys + problem.globals_, problem.head_dim, dtype, aligned
    )
    y = q.new_empty(q.shape)
    tables = {n: tensors[n].view(q.new_empty(0).int().dtype) for n in ("q_index", "kv_index")}
    pointers = [{**tensors, **tables}[n] for n in INPUTS[:-1]]
    local_global_attention[problem.grid(tile.rows)](
        *pointers,
        y,
        scale * LOG2_E,
        *problem.integers(words.pop()),
        tile_rows=tile.rows,
        tile_keys=tile.keys,
        tile_dim=tile.dim,
        precision="widened" if INTERPRETED else precision(architecture, dtype),
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return y


def _dtype(tensor: Any) -> str:
    if str(tensor.dtype) not in _DTYPES:
        raise TensorError(f"q is {tensor.dtype}; expected float16, bfloat16 or float32.")
    return _DTYPES[str(tensor.dtype)]


def _words(name: str, table: Any) -> int:
    if str(table.dtype) not in _WORDS:
        raise TensorError(f"{name} is {table.dtype}; expected int32 or int64.")
    return _WORDS[str(table.dtype)]
