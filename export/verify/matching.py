"""Pair the values of two graphs of one network, whatever their precision."""

from __future__ import annotations

from collections.abc import Iterator
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

    Nodes are matched by name and operator; nodes without a name by the name of their value.
    """
    by_label, by_value = {}, {}
    for label, operator, output, value in _values(reference):
        by_label[label, operator, output] = value
        by_value[operator, output, value] = value
    shapes, own_shapes = tensor_shapes(reference), tensor_shapes(suspect)
    pairs = []
    for label, operator, output, value in _values(suspect):
        named = not label.endswith(f"{operator}#{label.rpartition('#')[2]}")
        twin = by_label.get((label, operator, output)) if named else None
        twin = twin or by_value.get((operator, output, value))
        if twin is not None:
            pairs.append(
                Pair(
                    label,
                    operator,
                    output,
                    twin,
                    value,
                    shapes.get(twin, ()),
                    own_shapes.get(value, ()),
                )
            )
    return pairs


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


def _values(model: onnx.ModelProto) -> Iterator[tuple[str, str, int, str]]:
    for k, node in enumerate(model.graph.node):
        if node.op_type in INSERTED:
            continue
        for output, value in enumerate(node.output):
            if value:
                yield node_label(node, k), node.op_type, output, value
