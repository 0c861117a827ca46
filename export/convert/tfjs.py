"""Convert a TensorFlow.js graph model (``model.json`` + shards) into a static ONNX model.

Three steps: `tfjs_graph` reads the files, `tfjs_rules` says operator by operator how the graph is
written in ONNX, and this module cuts the graph at its heads, applies the rules and finishes the
model: short names, static shapes, numbers instead of "SAME" padding. An operator without a rule is
refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from prunus.export.convert.tfjs_graph import TfjsGraph, TfjsNode
from prunus.export.convert.tfjs_rules import ONNX_TYPE, RULES, TO_NHWC, Builder
from prunus.runtime.errors import ArtifactError, UsageError

OPSET = 20


def convert(
    graph: TfjsGraph,
    size: tuple[int, int],
    outputs: Mapping[str, str],
    *,
    half_storage: bool = True,
    scale: float = 1.0,
    offset: float = 0.0,
    channels_first: bool = False,
) -> onnx.ModelProto:
    """Convert the part of a graph model that leads to `outputs`.

    Args:
        graph: What `load_graph` returned.
        size: Height and width of the input in pixels.
        outputs: Name in the ONNX file -> name of the TensorFlow node.
        half_storage: Store weights as float16 where that is exact.
        scale: The original input is ``image * scale + offset``: for networks that take floats.
        offset: See `scale`.
        channels_first: Give outputs of rank 4 as (1, channels, height, width).

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
            "Cut the graph at its heads with `outputs`, or add a rule to export/convert/tfjs.py.",
        )
    builder = Builder(graph.weights, by_name, half_storage)
    for node in nodes:
        if node.op == "Placeholder":
            _input(builder, node, nodes, scale, offset)
        elif node.op != "Const":
            RULES[node.op](builder, node)
    for name, source in outputs.items():
        if channels_first:
            builder.add("Identity", [builder.nchw(source)], name)
            continue
        first = source in builder.channels_first
        builder.add(
            "Transpose" if first else "Identity",
            [source],
            name,
            **({"perm": TO_NHWC} if first else {}),
        )
    return _finish(builder, size, list(outputs))


def _ancestors(
    graph: TfjsGraph, by_name: Mapping[str, TfjsNode], heads: list[str]
) -> list[TfjsNode]:
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


def _input(
    b: Builder, placeholder: TfjsNode, nodes: Sequence[TfjsNode], scale: float, offset: float
) -> None:
    wanted = ONNX_TYPE[placeholder.attributes["dtype"]["type"]]
    readers = [n for n in nodes if placeholder.name in n.inputs]
    if (scale, offset) != (1.0, 0.0):
        value = b.add("Cast", ["image"], to=TensorProto.FLOAT)
        factors = (("Mul", scale), ("Add", offset))
        for op, factor in (f for f in factors if f != ("Add", 0.0)):
            operand = b.constant(f"image/{op.lower()}", np.array(factor, np.float32))
            value = b.add(op, [value, operand])
        b.add("Identity", [value], placeholder.name)
    elif all(n.op == "Cast" for n in readers):  # uint8 may go straight to what the readers cast to
        b.add("Identity", ["image"], placeholder.name)
    else:
        b.add("Cast", ["image"], placeholder.name, to=wanted)


def _finish(b: Builder, size: tuple[int, int], outputs: Sequence[str]) -> onnx.ModelProto:
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
    model = onnx.shape_inference.infer_shapes(
        model, check_type=True, strict_mode=True, data_prop=True
    )
    _write_padding(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def _shorten_names(model: onnx.ModelProto) -> None:
    """Keep the last three parts of TensorFlow's long paths, numbered where they meet."""
    graph = model.graph
    renamed: dict[str, str] = {v.name: v.name for v in [*graph.input, *graph.output]}
    renamed[""] = ""
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
