"""Names of nodes and values: unique, stable, and speaking of modules.

A node is called ``<module path>/<operator>_<n>``, its values ``<node>_out``, and a constant takes
the name of the parameter or of the first node that reads it.
"""

from __future__ import annotations

import ast
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_SCOPES_KEY = "pkg.torch.onnx.name_scopes"


def scope_of(name: str) -> str:
    """Return the module path of a node name: ``blocks.3.attn/MatMul_1`` -> ``blocks.3.attn``."""
    return name.rpartition("/")[0]


def scoped_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """Name every node of a freshly traced model after the module that it came from."""
    for node in model.graph.node:
        scope = next((p.value for p in node.metadata_props if p.key == _SCOPES_KEY), "[]")
        path: list[str] = ast.literal_eval(scope)
        # The last entry is the operation's own name, the one before the innermost module. Some
        # operators (splits) arrive without a scope and inherit their producer's.
        node.name = f"{path[-2]}/{node.op_type}" if len(path) > 1 else ""
    return canonical_names(model)


def canonical_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """Number nodes, values and constants by their order in the graph; edits in place.

    Nodes that a rewrite left without a scope take the one of their weights, else of their first
    producer. Graph inputs and outputs keep their names, and so do parameters.
    """
    graph = model.graph
    kept = {v.name for v in (*graph.input, *graph.output)}
    # Parameters keep their dotted path; constants that a tool made up are named by their reader.
    kept |= {t.name for t in graph.initializer if "." in t.name and "/" not in t.name}
    scopes = {name: name.rpartition(".")[0] for name in kept if "." in name}
    scopes |= {t.name: scope_of(t.name) for t in graph.initializer if "/" in t.name}
    renamed: dict[str, str] = {}
    taken: Counter[str] = Counter()
    used = set(kept)
    for node in graph.node:
        scope = scope_of(node.name) if "/" in node.name else _inherited(node, scopes)
        stem = f"{scope}/{node.op_type}"
        taken[stem] += 1
        node.name = stem if taken[stem] == 1 else f"{stem}_{taken[stem] - 1}"
        for k, value in enumerate(node.output):
            scopes[value] = scope
            if value and value not in kept:
                renamed[value] = _unique(f"{node.name}_out{k or ''}", used)
    _name_constants(graph, renamed, used, kept)
    for node in graph.node:
        node.input[:] = [renamed.get(v, v) for v in node.input]
        node.output[:] = [renamed.get(v, v) for v in node.output]
    for value_info in graph.value_info:
        value_info.name = renamed.get(value_info.name, value_info.name)
    return model


def _inherited(node: onnx.NodeProto, scopes: dict[str, str]) -> str:
    """Return the scope of the last input that has one: weights come after activations."""
    return next((scopes[v] for v in reversed(node.input) if scopes.get(v)), "")


def _name_constants(
    graph: onnx.GraphProto, renamed: dict[str, str], used: set[str], kept: set[str]
) -> None:
    """Name constants after their first reader and sort all of them by first use."""
    readers: dict[str, tuple[int, str]] = {}
    for node in graph.node:
        for k, value in enumerate(node.input):
            readers.setdefault(value, (len(readers), f"{node.name}_in{k}"))
    tensors = sorted(graph.initializer, key=lambda t: readers.get(t.name, (len(readers), ""))[0])
    for tensor in tensors:
        if tensor.name not in kept and tensor.name in readers:
            renamed[tensor.name] = _unique(readers[tensor.name][1], used)
            tensor.name = renamed[tensor.name]
    del graph.initializer[:]
    graph.initializer.extend(tensors)


def _unique(name: str, used: set[str]) -> str:
    candidate, n = name, 0
    while candidate in used:
        n += 1
        candidate = f"{name}_{n}"
    used.add(candidate)
    return candidate
