"""Refuse local-global attention nodes whose tables, heads or shapes are wrong, by their names.

A kernel trusts its tables: a position out of range would read foreign memory. So they are checked
where the graph is still readable, before anything is built of it. Needs numpy and onnx only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from prunus.export.graph.attention.body import DOMAIN, INPUTS
from prunus.export.graph.functions import (
    COMBINATIONS,
    NAMES,
    PLUGIN_ATTRIBUTES,
    VERSION,
    attention_nodes,
    attributes_of,
    constant_inputs,
    known_shapes,
)

TABLES = ("q_index", "kv_index", "o_index")
_NEUTRAL = (1, 1, 1, 1)
_WHOLE = (TensorProto.INT32, TensorProto.INT64)
_REAL = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


def problems(model: onnx.ModelProto) -> Iterator[tuple[str, str]]:
    """Yield each wrong node's name and the first thing that is wrong with it."""
    nodes = attention_nodes(model)
    for node in model.graph.node:
        if node.domain == DOMAIN and node.op_type not in NAMES:
            yield node.name or node.op_type, f"prunus has no operator '{node.op_type}'"
    if not nodes:
        return
    version = next((o.version for o in model.opset_import if o.domain == DOMAIN), VERSION)
    if version != VERSION:
        known = f"this prunus knows version {VERSION}"
        yield nodes[0].name or nodes[0].op_type, f"it is of version {version}; {known}"
    try:
        described = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # a broken graph: what it states must do
        described = model
    shapes, types = known_shapes(described), _known_types(described)
    constants = constant_inputs(model)
    for node in nodes:
        reason = _Node.read(node, shapes, types, constants).problem()
        if reason:
            yield node.name or node.op_type, reason


def _known_types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the element types written in a model."""
    graph = model.graph
    types = {t.name: t.data_type for t in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        types[value.name] = value.type.tensor_type.elem_type
    return types


@dataclass(frozen=True, slots=True)
class _Node:
    """A node with what is known about its inputs, by their names in the definition."""

    attributes: Mapping[str, Any]
    count: int
    shapes: Mapping[str, tuple[int, ...]]
    types: Mapping[str, int]
    tables: Mapping[str, npt.NDArray[Any]]

    @staticmethod
    def read(
        node: onnx.NodeProto,
        shapes: Mapping[str, tuple[int, ...]],
        types: Mapping[str, int],
        constants: Mapping[str, npt.NDArray[Any]],
    ) -> _Node:
        named = dict(zip(INPUTS, node.input, strict=False))
        return _Node(
            attributes_of(node),
            len([name for name in node.input if name]),
            {name: shapes[value] for name, value in named.items() if value in shapes},
            {name: types[value] for name, value in named.items() if types.get(value)},
            {name: constants[named[name]] for name in TABLES if named.get(name) in constants},
        )

    def problem(self) -> str:
        """Return the first thing that is wrong, or an empty string."""
        steps = (
            self._signature, self._static, self._typed, self._tokens, self._tables, self._biases,
        )  # fmt: skip
        return next((reason for step in steps if (reason := step())), "")

    @property
    def local(self) -> bool:
        return bool(self.attributes["combine"] != "global")

    @property
    def globals(self) -> bool:
        return bool(self.attributes["combine"] != "local")

    @property
    def read_inputs(self) -> tuple[str, ...]:
        """Names of the inputs that this combination reads."""
        near = ("K", "V", "kv_index", "bias_l") if self.local else ()
        far = ("Kg", "Vg", "bias_g") if self.globals else ()
        gate = ("gate",) if self.attributes["combine"] == "sum" else ()
        return ("Q", "q_index", "o_index", *near, *far, *gate)

    def _signature(self) -> str:
        if self.count != len(INPUTS):
            return f"it has {self.count} inputs; expected all {len(INPUTS)}: {', '.join(INPUTS)}"
        missing = [n for n in ("num_heads", "scale", "combine") if n not in self.attributes]
        if missing:
            return f"its attribute {missing[0]} is missing"
        if self.attributes["combine"] not in COMBINATIONS:
            known = ", ".join(COMBINATIONS)
            return f"combine is '{self.attributes['combine']}'; expected one of {known}"
        for name, value in PLUGIN_ATTRIBUTES.items():
            if self.attributes.get(name, value) != value:
                return f"its {name} is '{self.attributes[name]}'; expected '{value}'"
        return ""

    def _static(self) -> str:
        for name in self.read_inputs:
            shape = self.shapes.get(name)
            if shape is None:
                return f"the shape of {name} is unknown; expected constant sizes"
            if any(size < 1 for size in shape):
                shown = [size or "?" for size in shape]
                return f"{name} has the shape {shown}; expected constant sizes"
        return ""

    def _typed(self) -> str:
        for name in self.read_inputs:
            first, allowed = ("q_index", _WHOLE) if name in TABLES else ("Q", _REAL)
            got, wanted = self.types.get(name), self.types.get(first)
            if got is None:
                continue
            if got not in allowed:
                return f"{name} is {_type_name(got)}; expected {'/'.join(map(_type_name, allowed))}"
            if wanted and wanted in allowed and got != wanted and name != "o_index":
                return f"{name} is {_type_name(got)}; expected {first}'s {_type_name(wanted)}"
        return ""

    def _tokens(self) -> str:
        queries, heads = self.shapes["Q"], self.attributes["num_heads"]
        if len(queries) != 3:
            return f"Q has the shape {list(queries)}; expected (B, Nq, C)"
        batch, _, channels = queries
        if heads < 1 or channels % heads:
            return f"num_heads is {heads}, which does not divide the {channels} channels of Q"
        if self.local:
            keys = self.shapes["K"]
            if len(keys) != 3 or (keys[0], keys[2]) != (batch, channels):
                return f"K has the shape {list(keys)}; expected ({batch}, Nk, {channels})"
        if self.globals:
            keys = self.shapes["Kg"]
            if len(keys) != 4 or (keys[0], keys[3]) != (batch, channels):
                return f"Kg has the shape {list(keys)}; expected ({batch}, 1 or W, G, {channels})"
        return self._values()

    def _values(self) -> str:
        for key, value in (("K", "V"), ("Kg", "Vg")):
            keys, values = (self.shapes[n] if n in self.read_inputs else () for n in (key, value))
            if keys != values:
                return f"{value} has the shape {list(values)}; expected {key}'s {list(keys)}"
        return ""

    def _tables(self) -> str:
        for name in TABLES:
            if name in self.read_inputs and name not in self.tables:
                return f"{name} is computed in the graph; expected a constant table"
        count, q_index = self.shapes["Q"][1], self.tables["q_index"]
        if q_index.ndim != 2:
            return f"q_index has the shape {list(q_index.shape)}; expected (W, Lq)"
        reason = _cover(q_index, self.tables["o_index"], count)
        if reason or not self.local:
            return reason
        kv_index = self.tables["kv_index"]
        if kv_index.ndim != 2 or len(kv_index) != len(q_index):
            return f"kv_index has the shape {list(kv_index.shape)}; expected ({len(q_index)}, Lk)"
        return _range("kv_index", kv_index, self.shapes["K"][1])

    def _biases(self) -> str:
        batch, heads = self.shapes["Q"][0], self.attributes["num_heads"]
        windows, rows = self.tables["q_index"].shape
        if self.local:
            full = (windows, heads, rows, self.tables["kv_index"].shape[1])
            if reason := _broadcast("bias_l", self.shapes["bias_l"], full):
                return reason
        if not self.globals:
            return ""
        sets, tokens = self.shapes["Kg"][1:3]
        if sets not in (1, windows):
            return f"Kg has {sets} sets of global tokens; expected 1 or {windows}, one per window"
        lead = (batch, windows, heads, rows)
        reason = _broadcast("bias_g", self.shapes["bias_g"], (*lead, tokens))
        if reason or self.attributes["combine"] != "sum":
            return reason
        return _broadcast("gate", self.shapes["gate"], (*lead, 1))


def _type_name(kind: int) -> str:
    return str(TensorProto.DataType.Name(kind)).lower()  # type: ignore[arg-type]


def _range(name: str, table: npt.NDArray[Any], count: int) -> str:
    wrong = table[(table < 0) | (table >= count)]
    return f"{name} holds position {wrong[0]}; expected 0 to {count - 1}" if wrong.size else ""


def _cover(q_index: npt.NDArray[Any], o_index: npt.NDArray[Any], count: int) -> str:
    flat = q_index.reshape(-1)
    if reason := _range("q_index", flat, count):
        return reason
    seen = np.bincount(flat, minlength=count)
    wrong = np.flatnonzero(seen != 1)
    if wrong.size:
        return f"q_index holds query {wrong[0]} {seen[wrong[0]]} times; expected exactly once"
    if o_index.shape != (count,) or not np.array_equal(np.argsort(flat), o_index):
        return "o_index is not the inverse of the flattened q_index"
    return ""


def _broadcast(name: str, shape: Sequence[int], full: Sequence[int]) -> str:
    fits = len(shape) == len(full) and all(
        got in (1, want) for got, want in zip(shape, full, strict=True)
    )
    if fits or tuple(shape) == _NEUTRAL:
        return ""
    return f"{name} has the shape {list(shape)}; expected 1 or the size of {list(full)} per axis"
