"""What PyTorch's exporter does again for each graph, done once: the same graphs in less time.

It lists its 900 lowerings anew each time. And onnxscript tries a pattern of two outputs at every
node, each time with a list of all nodes: of a graph of two thousand nodes, a third of the time.
Both are inner parts of packages; a version that has no such parts is left as it is.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """Let `torch.onnx.export` work faster inside this block; what it returns is the same."""
    with contextlib.ExitStack() as after:
        for shorten in (_list_lowerings_once, _try_patterns_where_they_begin):
            with contextlib.suppress(ImportError, AttributeError):
                shorten(after)
        yield


def _list_lowerings_once(after: contextlib.ExitStack) -> None:
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    stock = vars(ONNXRegistry)["from_torchlib"]
    _, _ = ONNXRegistry()._opset_version, ONNXRegistry().functions  # what a copy is made of

    def copied(cls: Any, **version: Any) -> Any:
        """Return a registry of its own, since the caller adds lowerings to it."""
        listed, own = _listed(stock.__func__, cls, **version), cls()
        own._opset_version = listed._opset_version
        own.functions = {target: list(found) for target, found in listed.functions.items()}
        return own

    ONNXRegistry.from_torchlib = classmethod(copied)  # type: ignore[method-assign, assignment, arg-type]
    after.callback(setattr, ONNXRegistry, "from_torchlib", stock)


@functools.cache
def _listed(stock: Any, registry: Any, **version: Any) -> Any:
    return stock(registry, **version)


def _try_patterns_where_they_begin(after: contextlib.ExitStack) -> None:
    from onnxscript import rewriter

    for rule in rewriter._DEFAULT_REWRITE_RULES:
        if not rule._target_pattern.has_single_output_node:
            first = rule._target_pattern.output_nodes[0].op_identifier()
            rule.try_rewrite = functools.partial(_rewrite_from, rule.try_rewrite, first)  # type: ignore[method-assign]
            after.callback(vars(rule).pop, "try_rewrite", None)


def _rewrite_from(stock: Any, first: Any, model: Any, graph: Any, node: Any, **how: Any) -> Any:
    """Try a pattern at nodes of its first operator alone; `first` is None where it may be any."""
    if first is not None and node.op_identifier() != first:
        return None
    return stock(model, graph, node, **how)
