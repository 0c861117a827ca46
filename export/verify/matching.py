"""Pair the values of two graphs of one network, whatever their precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunus.export.verify.expose import block_of, node_label, tensor_shapes

if TYPE_CHECKING:
    import onnx

# Precision passes insert these and number them anew, so their names mean nothing across files.
INSERTED = frozenset({"Cast", "QuantizeLinear", "DequantizeLinear"})


@dataclass(frozen=True, slots=True)
class Pair:
    """A value that both graphs compute.

    Attributes:
        label: Node name in the suspect.
        operator: Operator of the node.
        output: Which output of the node it is.
        reference: Name of the value in the reference graph.
        suspect: Name of the value in the suspect graph.
        reference_shape: Static shape, empty when unknown or scalar.
        suspect_shape: Static shape, empty when unknown or scalar.
    """

    label: str
    operator: str
    output: int
    reference: str
    suspect: str
    reference_shape: tuple[int, ...]
    suspect_shape: tuple[int, ...]

    @property
    def block(self) -> str:
        """Block that computes the value."""
        return block_of(self.label)

    @property
    def same_shape(self) -> bool:
        """Whether the two values can be compared at all."""
        return self.reference_shape == self.suspect_shape


def matching_values(reference: onnx.ModelProto, suspect: onnx.ModelProto) -> list[Pair]:
    """Return the values that both graphs compute, in the order of the suspect's nodes.

    A node finds its twin in the same module, with the same operator and the same producers: a pass
    that sorts the graph anew numbers its nodes anew. Where the wiring differs, the name decides.
    """
    nodes, twins = _Wiring(reference), _Wiring(suspect)
    shapes, own_shapes = tensor_shapes(reference), tensor_shapes(suspect)
    known: dict[str, str] = {name: name for name in twins.inputs & nodes.inputs}
    pairs = []
    for label, node in twins.nodes.items():
        feeding = tuple(known.get(v, v) for v in twins.producers_of(node))
        twin = nodes.take(label, node, feeding)
        if twin is None:
            continue
        for output, (theirs, mine) in enumerate(zip(twin.output, node.output, strict=False)):
            if not (theirs and mine):
                continue
            known[mine] = theirs
            shape, own = shapes.get(theirs, ()), own_shapes.get(mine, ())
            pairs.append(Pair(label, node.op_type, output, theirs, mine, shape, own))
    return pairs


class _Wiring:
    """A graph without inserted conversions: nodes by label, and who feeds whom."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.inputs = {value.name for value in graph.input}
        self.producers = {value: node for node in graph.node for value in node.output}
        self.nodes = {
            node_label(node, k): node
            for k, node in enumerate(graph.node)
            if node.op_type not in INSERTED
        }
        self._free: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
        self._taken: set[str] = set()
        for label, node in self.nodes.items():
            self._free.setdefault(self._key(label, node, self.producers_of(node)), []).append(label)

    def producers_of(self, node: onnx.NodeProto) -> tuple[str, ...]:
        """Return the computed values that feed a node, seen through conversions; no constants."""
        found = []
        for value in node.input:
            name = value
            while name in self.producers and self.producers[name].op_type in INSERTED:
                name = self.producers[name].input[0]
            if name in self.producers or name in self.inputs:
                found.append(name)
        return tuple(found)

    def take(
        self, label: str, node: onnx.NodeProto, feeding: tuple[str, ...]
    ) -> onnx.NodeProto | None:
        """Return the free node that is wired like this one, else the one of the same name."""
        same = [
            x for x in self._free.get(self._key(label, node, feeding), ()) if x not in self._taken
        ]
        chosen = label if label in same else next(iter(same), None)
        if chosen is None and label in self.nodes and label not in self._taken:
            chosen = label if self.nodes[label].op_type == node.op_type else None
        if chosen is None:
            return None
        self._taken.add(chosen)
        return self.nodes[chosen]

    @staticmethod
    def _key(
        label: str, node: onnx.NodeProto, feeding: tuple[str, ...]
    ) -> tuple[str, str, tuple[str, ...]]:
        return label.rpartition("/")[0], node.op_type, feeding


def crossing(model: onnx.ModelProto, pairs: list[Pair]) -> list[Pair]:
    """Return the pairs whose value leaves its block in `model`, or leaves the graph."""
    readers: dict[str, set[str]] = {}
    for k, node in enumerate(model.graph.node):
        for value in node.input:
            readers.setdefault(value, set()).add(block_of(node_label(node, k)))
    outputs = {value.name for value in model.graph.output}
    return [
        pair
        for pair in pairs
        if pair.suspect in outputs or readers.get(pair.suspect, set()) - {pair.block}
    ]


def matched_inputs(model: onnx.ModelProto, pair: Pair, pairs: list[Pair]) -> list[Pair]:
    """Return the pairs that feed the node of `pair`, seen through inserted conversions."""
    producers = {value: node for node in model.graph.node for value in node.output}
    known = {p.suspect: p for p in pairs}
    found = []
    for value in producers[pair.suspect].input:
        name = value
        while name not in known and name in producers and producers[name].op_type in INSERTED:
            name = producers[name].input[0]
        if name in known:
            found.append(known[name])
    return found
