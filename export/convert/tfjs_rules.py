"""How each TensorFlow operator is written in ONNX: the table `RULES` and what its rules share.

Tensors keep the channels-last layout that TensorFlow gives them until a convolution needs
channels-first. From there they stay channels-first as long as their consumers allow it, so that the
result holds a handful of Transpose nodes and not two around each convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from prunus.export.convert.tfjs_graph import Array, TfjsNode
from prunus.runtime.errors import ArtifactError

ONNX_TYPE: Mapping[str, int] = {
    "DT_FLOAT": TensorProto.FLOAT,
    "DT_INT32": TensorProto.INT32,
    "DT_INT64": TensorProto.INT64,
    "DT_BOOL": TensorProto.BOOL,
}
TO_NCHW, TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)


@dataclass(slots=True)
class Builder:
    """ONNX nodes and constants under construction.

    Attributes:
        weights: Constants of the TensorFlow graph.
        by_name: Nodes of the TensorFlow graph.
        half_storage: Store float constants as float16 where that is exact.
        nodes: ONNX nodes in execution order.
        constants: ONNX initialisers.
        channels_first: Names of the tensors that are channels-first.
        converted: Names of constants and re-laid tensors that exist already.
        count: Nodes so far, which numbers fresh names.
    """

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
        if not output:
            while (output := f"{op.lower()}_{self.count}") in self.by_name:
                self.count += 1  # some graphs of TensorFlow.js name their own nodes like this
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
        if (
            self.half_storage
            and half is not None
            and array.size >= 16
            and np.array_equal(half, array)
        ):
            self.constants[name] = numpy_helper.from_array(half, name)
            result = self.add("Cast", [name], f"{name}#float", to=TensorProto.FLOAT)
        else:
            self.constants[name] = numpy_helper.from_array(array, name)
        self.converted[key] = result
        return result

    def weight(self, node: TfjsNode, index: int) -> Array:
        """Return a constant operand, or refuse the node."""
        if node.inputs[index] not in self.weights:
            raise ArtifactError(
                f"Operand {index} of {node.op} '{node.name}' is computed; expected a constant."
            )
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
            self.converted[key] = self.add("Transpose", [name], perm=TO_NCHW if first else TO_NHWC)
        return self.converted[key]

    def keep_layout(self, names: Sequence[str], output: str) -> list[str]:
        """Return operands of an elementwise node in one layout and record that of its output."""
        free = [self.weights[n] for n in names if n in self.weights]
        first = [n for n in names if n in self.channels_first]
        if first and len(first) + len(free) == len(names) and all(map(_per_channel, free)):
            self.channels_first.add(output)
            return [n if n in first else self._per_channel(n) for n in names]
        return [self.operand(n) for n in names]

    def _per_channel(self, name: str) -> str:
        """Return a scalar or a vector over channels as it is added to a channels-first tensor."""
        value = self.weights[name]
        if value.size == 1:
            return self.constant(f"{name}#scalar", value.reshape(()))
        return self.constant(f"{name}#channel", value.reshape(-1, 1, 1))


def _per_channel(value: Array) -> bool:
    """Whether an array acts on each channel alone in a channels-last tensor of rank 4."""
    return value.size == 1 or (value.ndim <= 4 and value.size == value.shape[-1])


Rule = Callable[[Builder, TfjsNode], None]


def _elementwise(onnx_op: str) -> Rule:
    def rule(b: Builder, n: TfjsNode) -> None:
        b.add(onnx_op, b.keep_layout(n.inputs, n.name), n.name)

    return rule


def _relu6(b: Builder, n: TfjsNode) -> None:
    b.add("Clip", [*b.keep_layout(n.inputs, n.name), *_six(b)], n.name)


def _six(b: Builder) -> list[str]:
    return [b.constant(f"relu6/{k}", np.array(v, np.float32)) for k, v in (("low", 0), ("high", 6))]


def _squared_difference(b: Builder, n: TfjsNode) -> None:
    difference = b.add("Sub", b.keep_layout(n.inputs, n.name))
    b.add("Mul", [difference, difference], n.name)


def _floor_div(b: Builder, n: TfjsNode) -> None:
    # Integers here are indices and sizes, never negative, where truncation and floor agree.
    inputs = b.keep_layout(n.inputs, n.name)
    if n.attributes["T"]["type"] == "DT_FLOAT":
        b.add("Floor", [b.add("Div", inputs)], n.name)
    else:
        b.add("Div", inputs, n.name)


def _cast(b: Builder, n: TfjsNode) -> None:
    b.add(
        "Cast", b.keep_layout(n.inputs, n.name), n.name, to=ONNX_TYPE[n.attributes["DstT"]["type"]]
    )


def _padding(n: TfjsNode) -> dict[str, Any]:
    kind = n.text("padding")
    if kind not in ("SAME", "VALID"):
        raise ArtifactError(f"Padding {kind} of '{n.name}' is not supported.")
    return {"auto_pad": "SAME_UPPER" if kind == "SAME" else "VALID"}


def _convolution(b: Builder, n: TfjsNode) -> None:
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


def _transposed_convolution(b: Builder, n: TfjsNode) -> None:
    sizes, kernel = b.weight(n, 0), b.weight(n, 1)  # kernel: height, width, out, in
    strides = n.integers("strides")[1:3]
    if n.text("padding") != "SAME" or any(s % t for s, t in zip(sizes[1:3], strides, strict=True)):
        raise ArtifactError(
            f"{n.op} '{n.name}' makes {list(sizes)} with {n.text('padding')} padding; expected "
            f"SAME and multiples of the strides {strides}."
        )
    extra = [max(k - t, 0) for k, t in zip(kernel.shape[:2], strides, strict=True)]
    before = [e // 2 for e in extra]
    weight = b.constant(f"{n.inputs[1]}#iohw", kernel.transpose(3, 2, 0, 1))
    b.add(
        "ConvTranspose", [b.nchw(n.inputs[2]), weight], n.name, strides=strides,
        kernel_shape=list(kernel.shape[:2]),
        pads=[*before, *(e - f for e, f in zip(extra, before, strict=True))],
    )  # fmt: skip
    b.channels_first.add(n.name)


def _activation(b: Builder, n: TfjsNode, x: str, kind: str) -> None:
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
    def rule(b: Builder, n: TfjsNode) -> None:
        size, strides = n.integers("ksize")[1:3], n.integers("strides")[1:3]
        b.add(
            onnx_op,
            [b.nchw(n.inputs[0])],
            n.name,
            kernel_shape=size,
            strides=strides,
            **_padding(n),
        )
        b.channels_first.add(n.name)

    return rule


def _resize(b: Builder, n: TfjsNode) -> None:
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
            raise ArtifactError(f"ResizeBilinear '{n.name}' computes its size in an unknown way.")
        scales = np.concatenate([np.ones(2), factors[0].reshape(2)]).astype(np.float32)
        inputs, extra = [x, "", b.constant(f"{n.name}#scale", scales)], {}
    b.add("Resize", inputs, n.name, mode="linear", coordinate_transformation_mode=mode, **extra)
    b.channels_first.add(n.name)


def _pad(b: Builder, n: TfjsNode) -> None:
    pads = b.weight(n, 1).astype(np.int64)
    if n.inputs[0] in b.channels_first:
        pads = pads[list(TO_NCHW)]
    inputs = b.keep_layout(n.inputs[:1], n.name)
    flat = np.concatenate([pads[:, 0], pads[:, 1]])
    b.add("Pad", [*inputs, b.constant(f"{n.name}#pads", flat)], n.name)


def _prelu(b: Builder, n: TfjsNode) -> None:
    slope = b.weight(n, 1)
    if n.inputs[0] in b.channels_first:  # one slope per channel, or a whole map of them
        slope = slope.reshape(-1, 1, 1) if slope.ndim < 3 else np.moveaxis(slope, -1, -3)
    inputs = b.keep_layout(n.inputs[:1], n.name)
    b.add("PRelu", [*inputs, b.constant(f"{n.name}#slope", slope)], n.name)


def _axes(b: Builder, *axes: int) -> str:
    return b.constant("axes" + "_".join(map(str, axes)), np.array(axes, np.int64))


def _unstack(b: Builder, n: TfjsNode) -> None:
    count, axis = n.integer("num"), n.integer("axis")
    for i in range(count):  # Gather with a scalar index drops the axis by itself
        index = b.constant(f"index{i}", np.array(i, np.int64))
        b.add(
            "Gather", [b.operand(n.inputs[0]), index], f"{n.name}:{i}" if i else n.name, axis=axis
        )


def _stack(b: Builder, n: TfjsNode) -> None:
    axis = n.integer("axis")
    parts = [b.add("Unsqueeze", [b.operand(i), _axes(b, axis)]) for i in n.inputs]
    b.add("Concat", parts, n.name, axis=axis)


def _expand_dims(b: Builder, n: TfjsNode) -> None:
    b.add("Unsqueeze", [b.operand(n.inputs[0]), _axes(b, int(b.weight(n, 1)))], n.name)


def _squeeze(b: Builder, n: TfjsNode) -> None:
    b.add("Squeeze", [b.operand(n.inputs[0]), _axes(b, *n.integers("squeeze_dims"))], n.name)


def _reshape(b: Builder, n: TfjsNode) -> None:
    shape = b.constant(f"{n.name}#shape", b.weight(n, 1).astype(np.int64))
    b.add("Reshape", [b.operand(n.inputs[0]), shape], n.name)


def _concat(b: Builder, n: TfjsNode) -> None:
    axis = int(b.weight(n, len(n.inputs) - 1))
    b.add("Concat", [b.operand(i) for i in n.inputs[:-1]], n.name, axis=axis)


def _arg_max(b: Builder, n: TfjsNode) -> None:
    index = b.add("ArgMax", [b.operand(n.inputs[0])], axis=int(b.weight(n, 1)), keepdims=0)
    b.add("Cast", [index], n.name, to=ONNX_TYPE[n.attributes["output_type"]["type"]])


def _gather_nd(b: Builder, n: TfjsNode) -> None:
    index = b.add("Cast", [b.operand(n.inputs[1])], to=TensorProto.INT64)
    b.add("GatherND", [b.operand(n.inputs[0]), index], n.name)


_SAME_MEANING = {
    "AddV2": "Add", "Add": "Add", "BiasAdd": "Add", "Sub": "Sub", "Mul": "Mul", "RealDiv": "Div",
    "AddN": "Sum", "Maximum": "Max", "Minimum": "Min", "Sqrt": "Sqrt", "Exp": "Exp",
    "Sigmoid": "Sigmoid", "Identity": "Identity", "Relu": "Relu",
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
    "Conv2DBackpropInput": _transposed_convolution,
    "MaxPool": _pool("MaxPool"),
    "AvgPool": _pool("AveragePool"),
    "ResizeBilinear": _resize,
    "Pad": _pad,
    "Prelu": _prelu,
    "Unpack": _unstack,
    "Pack": _stack,
    "ExpandDims": _expand_dims,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "ConcatV2": _concat,
    "ArgMax": _arg_max,
    "GatherNd": _gather_nd,
}
