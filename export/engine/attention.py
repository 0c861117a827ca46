"""Local-global attention nodes of a graph, looked at before any build starts.

TensorRT meets a bad table late or never: its values are read by the kernel alone, on the GPU. In
the file they are constants still, and an error can name the node.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prunus.runtime.errors import ArtifactError
from prunus.runtime.plugins.local_global_attention.tiles import MAX_HEAD_DIM, MIN_HEAD_DIM


@dataclass(frozen=True, slots=True)
class AttentionNodes:
    """What a graph asks of the plugin.

    Attributes:
        count: Number of nodes.
        refusal: Why the plugin cannot execute one of them, naming it; empty when it can.
        bare: Name of one without a function, which only the plugin can execute; empty: none.
    """

    count: int
    refusal: str = ""
    bare: str = ""


def check_attention(path: str | Path) -> AttentionNodes:
    """Check shapes, heads and index tables of every local-global attention node.

    Args:
        path: ONNX file.

    Raises:
        ArtifactError: a table is not constant, out of range, or does not cover every query once;
            heads do not divide the channels; a shape does not fit or is not constant. Names the
            node.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    from prunus.export.graph.attention.nodes import problems
    from prunus.export.graph.functions import (
        PLUGIN_ATTRIBUTES,
        attention_nodes,
        attributes_of,
        known_shapes,
    )

    try:
        model = onnx.load(str(path))
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ArtifactError(
            f"{path} cannot be read: {error}.", "Export the model again: prunus export ..."
        ) from None
    for node, reason in problems(model):
        raise ArtifactError(
            f"{path}: node '{node}' cannot become an engine: {reason}.",
            "Correct the tables and shapes in the network, and export it again.",
        )
    nodes = attention_nodes(model)
    shapes = known_shapes(model) if nodes else {}
    bodies = {(f.domain, f.name) for f in model.functions}
    bare = next((n.name or n.op_type for n in nodes if (n.domain, n.op_type) not in bodies), "")
    refusal = ""
    for node in nodes:
        attributes = attributes_of(node)
        channels = shapes.get(node.input[0], (0, 0, 0))[-1]
        head_dim = channels // int(attributes["num_heads"])
        if channels and not MIN_HEAD_DIM <= head_dim <= MAX_HEAD_DIM:
            refusal = (
                f"has a head dimension of {head_dim}; "
                f"the plugin takes {MIN_HEAD_DIM} to {MAX_HEAD_DIM}"
            )
        elif missing := [name for name in PLUGIN_ATTRIBUTES if name not in attributes]:
            refusal = f"has no attribute {missing[0]}, by which TensorRT finds the plugin"
        if refusal:
            refusal = f"{path}: node '{node.name}' {refusal}"
            break
    return AttentionNodes(len(nodes), refusal, bare)


def drop_bodies(path: str | Path, target: str | Path) -> None:
    """Write the graph without the functions of its attention nodes.

    Before 10.7 TensorRT takes a function even where a plugin of that name is registered, so what
    the plugin is to execute must come without one.

    Args:
        path: ONNX file.
        target: File to write.
    """
    import onnx

    from prunus.export.graph.attention.body import DOMAIN
    from prunus.export.graph.functions import NAMES

    model = onnx.load(str(path))
    kept = [f for f in model.functions if f.domain != DOMAIN or f.name not in NAMES]
    del model.functions[:]
    model.functions.extend(kept)
    onnx.save(model, str(target))
