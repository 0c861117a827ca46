"""Bodies of the model-local functions behind `prunus::LocalGlobalAttention`, in ONNX text.

A body is what runs wherever our kernel does not: ONNX Runtime and TensorRT put it in the place of
the node. It is written for few passes over memory. Heads are split by viewing (B, N, C) as rows
(B, N * h, d) and *gathering rows*: picking the windows' tokens and moving the heads forward is one
Gather, so no tensor is ever transposed but for the keys, where back ends fold the transpose into
the product. For `joint`, global tokens are put behind the keys before the Gather: one product, one
softmax, one product, and scores are never concatenated or split.

Types follow Q: a half-precision graph has a half-precision body. Softmax needs no cast to float32,
every back end sums it in float32 anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx

DOMAIN = "prunus"
INPUTS = (
    "Q", "K", "V", "q_index", "kv_index", "bias_l", "Kg", "Vg", "bias_g", "gate", "o_index",
)  # fmt: skip
MASK_VALUE = -30000.0
MASKED_BELOW = -10000.0
# Lists and numbers that only bodies read: they spare them all arithmetic on shapes.
BODY_ATTRIBUTES = (
    "bias_g_shape", "bias_l_shape", "global_heads", "global_index", "global_shape", "head_rows",
    "heads", "row_starts", "tokens", "window_rows", "window_step",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Body:
    """What a body must be able to do; a model has one body per combination.

    Attributes:
        combine: ``joint``, ``sum``, ``local`` or ``global``.
        biased: Whether a bias is anything but the neutral zero.
        guarded: Whether a row may be masked as a whole, and must then be zero.
    """

    combine: str
    biased: bool
    guarded: bool

    def function(self, name: str, opset: int) -> onnx.FunctionProto:
        """Return the body as a model-local function called `name`."""
        lines = "\n  ".join(_lines(self))
        read = [a for a in ("num_heads", "scale", *BODY_ATTRIBUTES) if f"@{a}>" in lines]
        text = (
            f'<domain: "{DOMAIN}", opset_import: ["" : {opset}]>\n'
            f"{name} <{', '.join(read)}> ({', '.join(INPUTS)}) => (Y)\n{{\n  {lines}\n}}"
        )
        return onnx.parser.parse_function(text)


def _lines(body: Body) -> Iterator[str]:
    yield from (
        "one = Constant <value_ints = [1]> ()",
        "num_heads = Constant <value_int: int = @num_heads> ()",
        "head_list = Constant <value_ints: ints = @heads> ()",
        "head_axis = Constant <value_ints = [1, -1, 1]> ()",
        "heads = Reshape (head_list, head_axis)",
        "head_rows = Constant <value_ints: ints = @head_rows> ()",
        "tokens = Constant <value_ints: ints = @tokens> ()",
        "scale_32 = Constant <value_float: float = @scale> ()",
        "scale = CastLike (scale_32, Q)",
    )
    if body.guarded:
        yield from (
            "last = Constant <value_ints = [-1]> ()",
            f"mask_32 = Constant <value_float = {MASK_VALUE}> ()",
            "mask = CastLike (mask_32, Q)",
            f"edge_32 = Constant <value_float = {MASKED_BELOW}> ()",
            "edge = CastLike (edge_32, Q)",
            "zero_32 = Constant <value_float = 0.0> ()",
            "zero = CastLike (zero_32, Q)",
        )
    yield from _gather("Q", "q_index", "q")
    yield "q_scaled = Mul (q, scale)"
    yield from {"joint": _joint, "sum": _sum, "local": _local, "global": _global}[body.combine](
        body
    )
    yield from (
        # Query n of window w = n div Lq lies, for head a, in row n + w * (h - 1) * Lq + a * Lq.
        "window_rows = Constant <value_int: int = @window_rows> ()",
        "window_step = Constant <value_int: int = @window_step> ()",
        "row_starts = Constant <value_ints: ints = @row_starts> ()",
        "o_window = Div (o_index, window_rows)",
        "o_shift = Mul (o_window, window_step)",
        "o_first = Add (o_index, o_shift)",
        # Not Unsqueeze: onnx would carry the values on as if they were a shape, and trip over Add.
        "column = Constant <value_ints = [-1, 1]> ()",
        "o_column = Reshape (o_first, column)",
        "o_rows = Add (o_column, row_starts)",
        "y_rows = Reshape (y, head_rows)",
        "y_heads = Gather <axis = 1> (y_rows, o_rows)",
        "Y = Reshape (y_heads, tokens)",
    )


def _gather(source: str, index: str, result: str) -> Iterator[str]:
    """Pick tokens (B, N, C) by index (W, L) as heads (B, W, h, L, d)."""
    yield from (
        f"{result}_tokens = Unsqueeze ({index}, one)",
        f"{result}_first = Mul ({result}_tokens, num_heads)",
        f"{result}_lines = Add ({result}_first, heads)",
        f"{result}_rows = Reshape ({source}, head_rows)",
        f"{result} = Gather <axis = 1> ({result}_rows, {result}_lines)",
    )


def _attend(keys: str, values: str, bias: str, result: str, body: Body) -> Iterator[str]:
    """Yield ``result = softmax(q_scaled keys^T + bias) values``, zero where all is masked."""
    product = f"{result}_all" if body.guarded else result
    if body.guarded:
        yield from (
            f"{result}_bias = Max ({bias}, mask)",
            f"{result}_best = ReduceMax <keepdims = 1> ({bias}, last)",
            f"{result}_alive = Greater ({result}_best, edge)",
        )
        bias = f"{result}_bias"
    scores = f"{result}_scores"
    yield f"{keys}_turned = Transpose <perm = [0, 1, 2, 4, 3]> ({keys})"
    if body.biased:
        yield f"{result}_raw = MatMul (q_scaled, {keys}_turned)"
        yield f"{scores} = Add ({result}_raw, {bias})"
    else:
        yield f"{scores} = MatMul (q_scaled, {keys}_turned)"
    yield f"{result}_weights = Softmax <axis = -1> ({scores})"
    yield f"{product} = MatMul ({result}_weights, {values})"
    if body.guarded:
        yield f"{result} = Where ({result}_alive, {product}, zero)"


def _joint(body: Body) -> Iterator[str]:
    yield from (
        "kg_tokens = Reshape (Kg, tokens)",
        "vg_tokens = Reshape (Vg, tokens)",
        "k_all = Concat <axis = 1> (K, kg_tokens)",
        "v_all = Concat <axis = 1> (V, vg_tokens)",
        "global_list = Constant <value_ints: ints = @global_index> ()",
        "global_shape = Constant <value_ints: ints = @global_shape> ()",
        "global_index = Reshape (global_list, global_shape)",
        "all_index = Concat <axis = 1> (kv_index, global_index)",
    )
    yield from _gather("k_all", "all_index", "k")
    yield from _gather("v_all", "all_index", "v")
    if body.biased:
        yield from (
            "bias_l_shape = Constant <value_ints: ints = @bias_l_shape> ()",
            "bias_g_shape = Constant <value_ints: ints = @bias_g_shape> ()",
            "bias_l_full = Expand (bias_l, bias_l_shape)",
            "bias_g_full = Expand (bias_g, bias_g_shape)",
            "bias = Concat <axis = -1> (bias_l_full, bias_g_full)",
        )
    yield from _attend("k", "v", "bias", "y", body)


def _local(body: Body) -> Iterator[str]:
    yield from _near("y", body)


def _global(body: Body) -> Iterator[str]:
    yield from _far("y", body)


def _sum(body: Body) -> Iterator[str]:
    yield from _near("y_near", body)
    yield from _far("y_far", body)
    yield "y_gated = Mul (y_far, gate)"
    yield "y = Add (y_near, y_gated)"


def _near(result: str, body: Body) -> Iterator[str]:
    yield from _gather("K", "kv_index", "k")
    yield from _gather("V", "kv_index", "v")
    yield from _attend("k", "v", "bias_l", result, body)


def _far(result: str, body: Body) -> Iterator[str]:
    yield "global_heads = Constant <value_ints: ints = @global_heads> ()"
    for name, source in (("kg", "Kg"), ("vg", "Vg")):
        yield f"{name}_split = Reshape ({source}, global_heads)"
        yield f"{name} = Transpose <perm = [0, 1, 3, 2, 4]> ({name}_split)"
    yield from _attend("kg", "vg", "bias_g", result, body)
