"""Judge a graph before it ships: static shapes everywhere, no operator that breaks a static engine.

Dynamic shapes, data-dependent counts and control flow stop CUDA graphs, and several operators are
unknown to TensorRT (DFT, scatter with a reduction, loops without a fixed trip count).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from prunus.export.graph.attention import nodes as attention_nodes
from prunus.export.graph.functions import inlined
from prunus.runtime.errors import PrunusError

MAX_TOPK = 3840  # TensorRT's limit on k

_FORBIDDEN = {
    "NonZero": "its output length depends on the data",
    "Unique": "its output length depends on the data",
    "Compress": "its output length depends on the data",
    "NonMaxSuppression": "its output length depends on the data",
    "Loop": "control flow",
    "If": "control flow",
    "Scan": "control flow",
    "SequenceAt": "sequences have no static shape",
    "SequenceConstruct": "sequences have no static shape",
    "DFT": "TensorRT has no DFT; write the transform as a constant matrix",
    "RandomNormal": "its output differs from run to run",
    "RandomUniform": "its output differs from run to run",
    "Dropout": "the module was not in evaluation mode",
}
_CONSTANT_INPUTS = {
    "Range": (0, 1, 2),
    "Expand": (1,),
    "Reshape": (1,),
    "ConstantOfShape": (0,),
    "Tile": (1,),
    "Slice": (1, 2, 3, 4),
    "Pad": (1, 3),
    "Resize": (2, 3),
    "Split": (1,),
    "Unsqueeze": (1,),
    "Squeeze": (1,),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason why a graph may not ship.

    Attributes:
        node: Name of the node, or of the value when no node makes it.
        reason: What is wrong with it, in one clause.
    """

    node: str
    reason: str

    def __str__(self) -> str:
        return f"{self.node}: {self.reason}"


def audit(model: onnx.ModelProto) -> list[Problem]:
    """Return every problem of a graph, an empty list when it may ship.

    Functions are judged by what they are when a back end inlines them.
    """
    wrong = [Problem(node, reason) for node, reason in attention_nodes.problems(model)]
    wrong = wrong or static_shapes(model)
    if not wrong and model.functions:
        wrong = static_shapes(inlined(model))
    return [*wrong, *forbidden_operators(model)]


def require_clean(model: onnx.ModelProto) -> None:
    """Refuse a graph with problems.

    Raises:
        PrunusError: naming the first problems and their nodes.
    """
    problems = audit(model)
    if problems:
        raise PrunusError(
            f"The graph cannot ship, {len(problems)} problem(s): {listed(problems)}.",
            "Write the module with constant shapes and the operators that DESIGN allows.",
        )


def listed(problems: Sequence[Problem]) -> str:
    """Return the first problems as one text, and how many more there are."""
    shown = "; ".join(str(problem) for problem in problems[:3])
    return shown + (f" (and {len(problems) - 3} more)" if len(problems) > 3 else "")


def static_shapes(model: onnx.ModelProto) -> list[Problem]:
    """Return values whose shape or type is not a constant after strict inference."""
    try:
        # check_type also refuses half/float mixes, which a strongly typed engine would not build.
        inferred = onnx.shape_inference.infer_shapes(
            model, check_type=True, strict_mode=True, data_prop=True
        )
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return [Problem("graph", f"shape inference fails: {(lines or ['unknown'])[0][:300]}")]
    graph = inferred.graph
    known = {v.name: v for v in (*graph.value_info, *graph.input, *graph.output)}
    makers = {name: node.name or node.op_type for node in graph.node for name in node.output}
    names = [v.name for v in graph.input] + [n for n in makers if n]
    problems = []
    for name in names:
        reason = _shape_problem(known.get(name))
        if reason:
            problems.append(Problem(makers.get(name, name), f"output '{name}' {reason}"))
    return problems


def _shape_problem(value: onnx.ValueInfoProto | None) -> str:
    if value is None or not value.type.HasField("tensor_type"):
        return "has no tensor type"
    tensor = value.type.tensor_type
    if tensor.elem_type == TensorProto.UNDEFINED:
        return "has no element type"
    if not tensor.HasField("shape"):
        return "has an unknown rank"
    dims = [
        d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim
    ]
    if any(not isinstance(d, int) or d < 1 for d in dims):
        return f"has shape {dims}, which is not constant"
    return ""


def forbidden_operators(model: onnx.ModelProto) -> list[Problem]:
    """Return nodes whose operator, or way of using it, breaks a static engine."""
    problems = _byte_readers(model)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    scopes = [(model.graph.node, tensors), *((f.node, {}) for f in model.functions)]
    for nodes, given in scopes:
        made = [n for n in nodes if n.op_type == "Constant" and n.attribute]
        constants = given | {n.output[0]: _constant(n.attribute[0]) for n in made}
        for node in nodes:
            reason = _operator_problem(node, constants)
            if reason:
                problems.append(Problem(node.name or node.op_type, reason))
    return problems


def _constant(attribute: onnx.AttributeProto) -> TensorProto:
    """Return the value of a Constant node, which may be a tensor, a number or a list.

    A function's constant may be named by the caller; one stands for it.
    """
    if attribute.ref_attr_name:
        return numpy_helper.from_array(np.ones(1, np.int64))
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, TensorProto):
        return value
    return numpy_helper.from_array(np.asarray(value))


def _byte_readers(model: onnx.ModelProto) -> list[Problem]:
    uint8 = TensorProto.UINT8
    raw = {v.name for v in model.graph.input if v.type.tensor_type.elem_type == uint8}
    return [
        Problem(
            node.name or node.op_type, f"{node.op_type} reads bytes; TensorRT can only Cast them"
        )
        for node in model.graph.node
        if node.op_type != "Cast" and raw & set(node.input)
    ]


_Rule = Callable[[onnx.NodeProto, dict[str, onnx.TensorProto]], str]


def _operator_problem(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> str:
    if node.op_type in _FORBIDDEN:
        return f"{node.op_type} is not allowed ({_FORBIDDEN[node.op_type]})"
    rule = _RULES.get(node.op_type)
    if rule is not None:
        return rule(node, constants)
    slots: Sequence[int] = _CONSTANT_INPUTS.get(node.op_type, ())
    loose = [k for k in slots if k < len(node.input) and node.input[k]]
    loose = [k for k in loose if node.input[k] not in constants]
    if loose:
        return f"{node.op_type} reads its input {loose[0]} from the data; it must be a constant"
    return ""


def _scatter(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> str:
    reduction = next((a.s.decode() for a in node.attribute if a.name == "reduction"), "none")
    if reduction != "none":
        return f"{node.op_type} with reduction '{reduction}' is not allowed (none only)"
    return ""


def _topk(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> str:
    if len(node.input) < 2 or node.input[1] not in constants:
        return "TopK has a k that is not constant"
    k = int(numpy_helper.to_array(constants[node.input[1]]).reshape(-1)[0])
    if not 1 <= k <= MAX_TOPK:
        return f"TopK has k={k}; expected 1..{MAX_TOPK}"
    is_sorted = next((a.i for a in node.attribute if a.name == "sorted"), 1)
    return "" if is_sorted == 1 else "TopK has sorted=0; TensorRT takes sorted=1 only"


_RULES: dict[str, _Rule] = {"ScatterElements": _scatter, "ScatterND": _scatter, "TopK": _topk}
