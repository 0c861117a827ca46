"""A clean graph: constants folded, norms folded, nothing of this machine inside, same bytes again.

Steps: onnxsim; batch norms that stand behind a pixel shuffle go into the convolution before it
(onnxsim sees only direct neighbours); metadata removed; names, order and shapes made canonical.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from prunus.export.graph.functions import add_functions
from prunus.export.graph.naming import canonical_names
from prunus.runtime.errors import MissingDependencyError, PrunusError

PRODUCER = "prunus"
_SKIPPED = [
    # MatMul + Add is what every back end's attention patterns are written for; Gemm needs two extra
    # reshapes per linear layer and was not faster in ONNX Runtime.
    "fuse_matmul_add_bias_into_gemm",
    "fuse_matmul_add_bias_into_gemm_batched",
    # Would drop biases that happen to be zero: a graph must not change shape with its weights.
    "eliminate_nop_with_unit",
]


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a smaller model that computes the same.

    Args:
        model: A model with static shapes, as `trace` gives it.

    Returns:
        A new model with canonical names and the shape of every intermediate.

    Raises:
        PrunusError: the simplifier fails, or its result is not a valid model.
        MissingDependencyError: onnxsim is not installed.
    """
    try:
        import onnxsim
    except ImportError:
        raise MissingDependencyError("onnxsim", "export", "Simplifying a graph") from None
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            simple, _ = onnxsim.simplify(model, check_n=0, skipped_optimizers=_SKIPPED)
            cast_bytes_first(simple)
            fold_shuffled_norms(simple)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise PrunusError(f"Cannot simplify the graph: {reason[:200]}.") from error
    return canonicalise(simple)


def canonicalise(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove machine traces and unused constants, name everything, infer every shape.

    Raises:
        PrunusError: shapes or types of the model contradict each other.
    """
    strip(model)
    graph = model.graph
    read = {name for node in graph.node for name in node.input} | {v.name for v in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    share_constants(model)
    add_functions(model)  # what became constant may allow a simpler body
    canonical_names(model)
    return with_shapes(model)


def with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with `value_info` inferred afresh, in the order of the nodes.

    Raises:
        PrunusError: shapes or types of the model contradict each other.
    """
    del model.graph.value_info[:]
    try:
        model = onnx.shape_inference.infer_shapes(
            model, check_type=True, strict_mode=True, data_prop=True
        )
    except Exception as error:
        reason = next((s for s in str(error).splitlines() if s.strip()), type(error).__name__)
        raise PrunusError(f"The graph's shapes do not fit together: {reason[:300]}.") from error
    found = {value.name: value for value in model.graph.value_info}
    ordered = [found[v] for node in model.graph.node for v in node.output if v in found]
    del model.graph.value_info[:]
    model.graph.value_info.extend(ordered)
    return model


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove doc strings, stack traces and metadata (paths of this machine); edits in place."""
    graph = model.graph
    del model.metadata_props[:]
    model.producer_name, model.producer_version, model.domain = PRODUCER, "", ""
    model.model_version = 0
    graph.name = "main"
    functions: list[Any] = list(model.functions)
    for holder in (model, graph, *functions):
        holder.doc_string = ""
    for group in (graph.node, graph.initializer, graph.value_info, graph.input, graph.output):
        for item in group:
            item.doc_string = ""
            del item.metadata_props[:]
    for holder in (graph, *functions):
        del holder.metadata_props[:]
    for function in functions:
        for node in function.node:
            node.doc_string = ""
            del node.metadata_props[:]
    return model


def cast_bytes_first(model: onnx.ModelProto) -> None:
    """Turn ``Transpose -> Cast`` of bytes around: TensorRT can do nothing but cast them."""
    graph = model.graph
    uint8 = onnx.TensorProto.UINT8
    raw = {v.name for v in graph.input if v.type.tensor_type.elem_type == uint8}
    outputs = {v.name for v in graph.output}
    for node in [n for n in graph.node if n.op_type == "Transpose" and n.input[0] in raw]:
        readers = [n for n in graph.node if node.output[0] in n.input]
        if len(readers) != 1 or readers[0].op_type != "Cast" or node.output[0] in outputs:
            continue
        cast, middle, result = readers[0], node.output[0], readers[0].output[0]
        cast.input[0], cast.output[0] = node.input[0], middle
        node.input[0], node.output[0] = middle, result
        nodes = [n for n in graph.node if n is not node and n is not cast]
        at = next(k for k, n in enumerate(graph.node) if n is node)
        first, second = onnx.NodeProto(), onnx.NodeProto()
        first.CopyFrom(cast)
        second.CopyFrom(node)
        nodes[at:at] = [first, second]
        del graph.node[:]
        graph.node.extend(nodes)


def share_constants(model: onnx.ModelProto) -> None:
    """Keep one copy of constants of equal type, shape and bytes, stored as raw bytes."""
    graph = model.graph
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    renamed: dict[str, str] = {}
    unique: list[onnx.TensorProto] = []
    outputs = {v.name for v in graph.output}
    for tensor in graph.initializer:
        if not tensor.HasField("raw_data"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
        # Parameters keep their own copy: equal by chance (fresh norms) is not equal by meaning.
        parameter = "." in tensor.name and "/" not in tensor.name
        key = (tensor.data_type, tuple(tensor.dims), tensor.raw_data)
        if parameter or tensor.name in outputs or key not in first:
            first.setdefault(key, tensor.name)
            unique.append(tensor)
        else:
            renamed[tensor.name] = first[key]
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    del graph.initializer[:]
    graph.initializer.extend(unique)


def fold_shuffled_norms(model: onnx.ModelProto) -> int:
    """Fold ``Conv -> DepthToSpace -> BatchNormalization`` into the convolution; return how many.

    With s = gamma / sqrt(var + eps), a norm scales output channel c of the shuffle by s[c]. Channel
    c is made of r*r channels of the convolution, neighbours in CRD order and C apart in DCR order.
    """
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    count = 0
    for norm in [node for node in graph.node if node.op_type == "BatchNormalization"]:
        shuffle = producers.get(norm.input[0])
        conv = producers.get(shuffle.input[0]) if shuffle is not None else None
        if shuffle is None or conv is None or not _foldable(graph, conv, shuffle, norm, tensors):
            continue
        _fold(graph, conv, shuffle, norm, tensors)
        count += 1
    return count


def _foldable(
    graph: onnx.GraphProto,
    conv: onnx.NodeProto,
    shuffle: onnx.NodeProto,
    norm: onnx.NodeProto,
    tensors: dict[str, onnx.TensorProto],
) -> bool:
    if (conv.op_type, shuffle.op_type) != ("Conv", "DepthToSpace"):
        return False
    reads = [name for node in graph.node for name in node.input]
    reads += [value.name for value in graph.output]
    alone = reads.count(conv.output[0]) == 1 and reads.count(shuffle.output[0]) == 1
    return alone and all(name in tensors for name in (*conv.input[1:], *norm.input[1:]))


def _fold(
    graph: onnx.GraphProto,
    conv: onnx.NodeProto,
    shuffle: onnx.NodeProto,
    norm: onnx.NodeProto,
    tensors: dict[str, onnx.TensorProto],
) -> None:
    gamma, beta, mean, var = (numpy_helper.to_array(tensors[n]) for n in norm.input[1:5])
    eps = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
    mode = next((a.s for a in shuffle.attribute if a.name == "mode"), b"DCR")
    weight = numpy_helper.to_array(tensors[conv.input[1]])
    bias = numpy_helper.to_array(tensors[conv.input[2]]) if len(conv.input) > 2 else 0.0
    copies = weight.shape[0] // gamma.shape[0]

    def spread(values: np.ndarray) -> np.ndarray:
        return np.repeat(values, copies) if mode == b"CRD" else np.tile(values, copies)

    # float64 so that the folded weights are rounded once only.
    scale = gamma.astype(np.float64) / np.sqrt(var.astype(np.float64) + eps)
    shift = spread(beta.astype(np.float64) - mean.astype(np.float64) * scale)
    new_weight = (weight * spread(scale)[:, None, None, None]).astype(weight.dtype)
    new_bias = (bias * spread(scale) + shift).astype(weight.dtype)
    stem = conv.input[1]
    names = [f"{stem}.folded_weight", f"{stem}.folded_bias"]
    for name, array in zip(names, (new_weight, new_bias), strict=True):
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
    conv.input[:] = [conv.input[0], *names]
    shuffle.output[0] = norm.output[0]
    graph.node.remove(norm)
