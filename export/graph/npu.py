"""Judge a graph for NPUs: everything that it picks, it picks at places that are constants.

Compilers for NPUs plan each transfer of memory before the first run. An index that is computed from
the picture (TopK, ArgMax, Gather by data) leaves such a plan, where the operator exists at all, for
a slow programmable core. `export/graph/audit.py` refuses shapes that depend on data; this refuses
places that do.
"""

from __future__ import annotations

import onnx

from prunus.export.graph.audit import Problem, listed
from prunus.export.graph.functions import inlined
from prunus.runtime.errors import PrunusError

_CHOOSING = frozenset({
    "ArgMax", "ArgMin", "Compress", "Hardmax", "If", "Loop", "MaxUnpool", "NonMaxSuppression",
    "NonZero", "OneHot", "RoiAlign", "Scan", "TopK", "Unique",
})  # fmt: skip
# Operator -> its input that must be a constant: where it reads, or writes.
_PLACES = {
    "Gather": 1, "GatherElements": 1, "GatherND": 1, "GridSample": 1, "Scatter": 1,
    "ScatterElements": 1, "ScatterND": 1,
}  # fmt: skip


def chosen_by_data(model: onnx.ModelProto) -> list[Problem]:
    """Return the nodes that choose by what they compute, an empty list when none does.

    Functions are judged by what they are when a back end inlines them.
    """
    graph = inlined(model).graph if model.functions else model.graph
    constants = {tensor.name for tensor in graph.initializer}
    problems = []
    for node in graph.node:
        # What is computed from constants alone is one, whoever folds it.
        if node.op_type == "Constant" or (node.input and set(node.input) <= constants | {""}):
            constants |= set(node.output)
        elif node.op_type in _CHOOSING:
            problems.append(Problem(node.name or node.op_type, f"{node.op_type} chooses by data"))
        elif node.op_type in _PLACES and node.input[_PLACES[node.op_type]] not in constants:
            reason = f"{node.op_type} takes its places from the data"
            problems.append(Problem(node.name or node.op_type, reason))
    return problems


def require_constant_choice(model: onnx.ModelProto) -> None:
    """Refuse a graph in which anything is chosen by the data.

    Raises:
        PrunusError: naming the first nodes.
    """
    problems = chosen_by_data(model)
    if problems:
        raise PrunusError(
            f"The graph is none for an NPU, {len(problems)} node(s) choose by the data: "
            f"{listed(problems)}.",
            "Cut tokens at constant places (strided, average_pool), or leave out --npu.",
        )
