"""Read tensors from inside an ONNX graph: name them, size them, and turn them into outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prunus.runtime.errors import MissingDependencyError

if TYPE_CHECKING:
    import onnx


def load_model(source: str | Any) -> onnx.ModelProto:
    """Load an ONNX file whole; a model that is already loaded passes through.

    Raises:
        MissingDependencyError: onnx is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise MissingDependencyError("onnx", "check", "Reading the inside of a graph") from None
    return source if isinstance(source, onnx.ModelProto) else onnx.load(str(source))


def node_label(node: onnx.NodeProto, index: int) -> str:
    """Return the node's name, or its operator and place when it has none."""
    return node.name or f"{node.op_type}#{index}"


def block_of(label: str) -> str:
    """Return the block that a node belongs to, read off its module path.

    The block is the path up to and including the first number, else its first two parts.

    Example:
        >>> block_of("network.blocks.3.attn/MatMul_1")
        'network.blocks.3'
        >>> block_of("network.head.deconv/Conv")
        'network.head'
        >>> block_of("/Sub")
        'top level'
    """
    parts = [p for p in label.rpartition("/")[0].split(".") if p]
    for k, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[: k + 1])
    return ".".join(parts[:2]) or "top level"


def with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return a copy whose graph outputs are its own followed by the tensors `names`.

    Types are left out: ONNX Runtime infers them, and a wrong guess would be refused.
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    present = {value.name for value in copy.graph.output}
    copy.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in names if name not in present
    )
    return copy


def tensor_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the static shape of every value that shape inference can size."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(d.HasField("dim_value") for d in kind.shape.dim):
            shapes[value.name] = tuple(d.dim_value for d in kind.shape.dim)
    return shapes


def find_tensor(model: onnx.ModelProto, shape: tuple[int, ...], scope: str) -> str | None:
    """Return the last tensor of `shape` that a node below module `scope` computes, if any."""
    shapes = tensor_shapes(model)
    for node in reversed(model.graph.node):
        path = f"{node.name.rpartition('/')[0]}."
        if path.startswith(f"{scope}."):
            for name in node.output:
                if shapes.get(name) == shape:
                    return str(name)
    return None
