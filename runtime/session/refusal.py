"""Why a back end does not load a graph: one error, with the node where an operator is the cause."""

from __future__ import annotations

from pathlib import Path

from prunus.runtime.card.graph import Node, read_nodes
from prunus.runtime.errors import ArtifactError

_LENGTH = 300
_INLINE = (
    "It is a function in the file, which this back end does not read: use --backend onnxruntime, "
    "or write it out with onnx.inliner.inline_local_functions."
)


def refused(
    backend: str,
    called: str,
    source: str | Path | bytes,
    reason: str,
    *,
    operator: str,
    hint: str,
) -> ArtifactError:
    """Return the error of a graph that a back end does not load.

    Args:
        backend: Label and version.
        called: Name of the graph in messages.
        source: The file, or the bytes of a graph, whose nodes have no names to look up.
        reason: What the back end says, one line.
        operator: Type of the operator that it does not have, empty where that is not the cause.
        hint: What to do otherwise.
    """
    if operator and not isinstance(source, bytes):
        nodes, functions = read_nodes(source)
        node = next((n for n in nodes if n.operator == operator), None)
        if node is not None:
            return ArtifactError(
                f"{backend} cannot load {called}: node '{node.name}' is {node.title}, which it "
                "does not have.",
                _INLINE if (node.domain, operator) in functions else _way_out(node, backend),
            )
    return ArtifactError(f"{backend} cannot load {called}: {reason[:_LENGTH]}", hint)


def _way_out(node: Node, backend: str) -> str:
    if not node.domain:
        return (
            "Upgrade the back end, or convert the file to an older opset: "
            "onnx.version_converter.convert_version."
        )
    if node.domain.startswith("com.microsoft") and not backend.startswith("ONNX Runtime"):
        return "Use --backend onnxruntime, or export without ONNX Runtime's own optimiser."
    return (
        f"Export without '{node.domain}' operators, write this one as a function of standard "
        "operators in the file (onnx.helper.make_function), or cut it off "
        "(onnx.utils.extract_model)."
    )
