"""float32 graph -> typed half-precision graph: every cast is in the file, nothing is left to flags.

Strongly typed engines (TensorRT 11, TensorRT-RTX) take number formats from the graph alone. The
converter in `onnxruntime.transformers.float16` rounds to half between any two nodes that it was
told to keep, so the ranking branch and the sub-pixel decode would not be float32 at all; this pass
inserts a cast only where the format changes.

What stays float32: the modules that rank (TopK, ArgMax) and decode, and readers of constants that
half cannot hold. Layer norms are half but accumulate in float32 (ONNX `stash_type` 1).
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from prunus.export.graph.naming import scope_of
from prunus.export.graph.simplify import canonicalise, with_shapes
from prunus.runtime.errors import PrunusError

HALF_MAX = 65504.0
_FLOAT, _HALF = TensorProto.FLOAT, TensorProto.FLOAT16
# Inputs that the operator defines as float32 whatever the data type is.
_ALWAYS_FLOAT = {"Resize": (1, 2), "Upsample": (1,)}
_DECIDING = ("TopK", "ArgMax", "ArgMin")


def to_fp16(model: onnx.ModelProto, keep_fp32: Collection[str] | None = None) -> onnx.ModelProto:
    """Return the model with weights and activations in half precision.

    Graph inputs and outputs keep their types.

    Args:
        model: A float32 model with canonical names.
        keep_fp32: Names of nodes to leave in float32; by default `sensitive_nodes(model)`.

    Returns:
        A new, canonical model.

    Raises:
        PrunusError: a name in `keep_fp32` is not in the graph.
    """
    keep = set(sensitive_nodes(model) if keep_fp32 is None else keep_fp32)
    missing = sorted(keep - {node.name for node in model.graph.node})
    if missing:
        raise PrunusError(f"Cannot keep '{missing[0]}' in float32: no node has this name.")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return canonicalise(_HalfTyping(with_shapes(copy), keep).run())


def sensitive_nodes(model: onnx.ModelProto) -> list[str]:
    """Return the nodes that decide (rank, pick a peak) with the rest of their module.

    A decision turns a rounding error into another token or another pixel. The module of every
    TopK and ArgMax is taken whole, except for layers with weights; the other nodes that lie at the
    same level as it (not in submodules) are included, submodules of a named module too. So is
    whatever lies between the inputs and the first layer: half has 11 bits, and raw pixels need 8
    of them before the mean is taken off.
    """
    weights = {t.name for t in model.graph.initializer if len(t.dims) > 1}
    scopes = deciding_modules(model)
    raw = {value.name for value in model.graph.input}
    names = []
    for node in model.graph.node:
        if _weighted(node, weights):
            continue
        normalises = bool(raw & set(node.input))
        if normalises:
            raw |= set(node.output)
        if normalises or lies_within(node, scopes):
            names.append(node.name)
    return names


def deciding_modules(model: onnx.ModelProto) -> set[str]:
    """Return the paths of the modules that rank or pick a peak themselves."""
    return {scope_of(n.name) for n in model.graph.node if n.op_type in _DECIDING}


def lies_within(node: onnx.NodeProto, scopes: Collection[str]) -> bool:
    """Return whether a node lies in one of these modules, or in a submodule of a named one."""
    scope = scope_of(node.name)
    return scope in scopes or any(s and scope.startswith(f"{s}.") for s in scopes)


def _weighted(node: onnx.NodeProto, weights: Collection[str]) -> bool:
    heavy = node.op_type in ("MatMul", "Gemm", "Conv", "ConvTranspose")
    return heavy and any(name in weights for name in node.input[1:])


class _HalfTyping:
    """Rewrites the node list once, front to back, tracking the format of every value."""

    def __init__(self, model: onnx.ModelProto, keep: Collection[str]) -> None:
        self.model = model
        self.keep = keep
        graph = model.graph
        self.constants = {t.name: t for t in graph.initializer if t.data_type == _FLOAT}
        values = (*graph.value_info, *graph.input, *graph.output)
        self.floats = {v.name for v in values if v.type.tensor_type.elem_type == _FLOAT}
        self.formats = {v.name: _FLOAT for v in graph.input if v.name in self.floats}
        self.outputs = {v.name for v in graph.output}
        self.casts: dict[tuple[str, int], str] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.added: list[onnx.TensorProto] = []

    def run(self) -> onnx.ModelProto:
        graph = self.model.graph
        for node in graph.node:
            kept = node.name in self.keep or self._overflows(node)
            self._convert(node, _FLOAT if kept else _HALF)
        nodes, tensors = self.nodes, [*graph.initializer, *self.added]
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(nodes)
        graph.initializer.extend(tensors)
        return self.model

    def _convert(self, node: onnx.NodeProto, wanted: int) -> None:
        fixed = _ALWAYS_FLOAT.get(node.op_type, ())
        for k, name in enumerate(node.input):
            target = _FLOAT if k in fixed else wanted
            if name in self.constants:
                node.input[k] = self._constant(name, target)
            elif name in self.formats and self.formats[name] != target:
                node.input[k] = self._cast(name, target, node.name)
        if wanted == _HALF:
            _halve_attributes(node)
        self.nodes.append(node)
        for k, name in enumerate(node.output):
            if name not in self.floats:
                continue
            if name in self.outputs and wanted == _HALF:
                # The graph output stays float32; later readers may take either copy.
                node.output[k] = f"{name}/half"
                self.formats[node.output[k]] = _HALF
                self.casts[name, _HALF] = node.output[k]
                self._emit_cast(node.output[k], name, _FLOAT, node.name)
            self.formats[name] = _FLOAT if name in self.outputs else wanted

    def _constant(self, name: str, target: int) -> str:
        if target == _FLOAT:
            return name
        if (name, target) not in self.casts:
            half = numpy_helper.to_array(self.constants[name]).astype(np.float16)
            # A parameter keeps its dotted path as its name; the float32 copy falls away if unread.
            self.casts[name, target] = f"{name}.half"
            self.added.append(numpy_helper.from_array(half, f"{name}.half"))
        return self.casts[name, target]

    def _cast(self, name: str, target: int, reader: str) -> str:
        if (name, target) not in self.casts:
            self.casts[name, target] = f"{name}/{'half' if target == _HALF else 'float'}"
            self._emit_cast(name, self.casts[name, target], target, reader)
        return self.casts[name, target]

    def _emit_cast(self, source: str, result: str, target: int, reader: str) -> None:
        name = f"{scope_of(reader)}/Cast"
        self.nodes.append(helper.make_node("Cast", [source], [result], name=name, to=target))
        self.formats[result] = target

    def _overflows(self, node: onnx.NodeProto) -> bool:
        used = [self.constants[name] for name in node.input if name in self.constants]
        arrays = (numpy_helper.to_array(tensor) for tensor in used)
        return any(
            a.size and float(np.abs(a[np.isfinite(a)]).max(initial=0)) > HALF_MAX for a in arrays
        )


def _halve_attributes(node: onnx.NodeProto) -> None:
    """Turn the float32 types that a node names itself into half."""
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == _FLOAT:
            attribute.i = _HALF
        elif attribute.name == "value" and attribute.t.data_type == _FLOAT:
            half = numpy_helper.to_array(attribute.t).astype(np.float16)
            attribute.t.CopyFrom(numpy_helper.from_array(half, attribute.t.name))
