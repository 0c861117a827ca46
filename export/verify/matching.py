"""Pair the values of two graphs of one network, whatever their precision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prunus.export.verify.expose import block_of, node_label, tensor_shapes

if TYPE_CHECKING:
    import onnx

# Precision passes insert these and number them anew, so their names mean nothing across files.
INSERTED = frozenset({"Cast", "QuantizeLinear", "DequantizeLinear"})
_INT64 = 7  # of onnx.TensorProto.DataType
_FLOATS = frozenset({1, 10, 11, 16})  # float, float16, double, bfloat16


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
    that sorts the graph anew numbers its nodes anew. Where the wiring differs, the name decides,
    but only for nodes that are fed by known values or bear weights: two graphs that are written
    differently, as a network and its rewritten form, give one name to unlike nodes without weights.
    Values of different shapes are never the same.
    """
    nodes, twins = _Wiring.of(reference), _Wiring.of(suspect)
    shapes, own_shapes = nodes.shapes, twins.shapes
    known: dict[str, str] = {name: name for name in twins.inputs & nodes.inputs}
    pairs = []
    for label, node in twins.nodes.items():
        feeding = tuple(known.get(v) for v in twins.producers_of(node))
        twin = nodes.take(label, feeding, _Form.of(twins, node), set(known.values()))
        if twin is None:
            continue
        for output, (theirs, mine) in enumerate(zip(twin.output, node.output, strict=False)):
            if not (theirs and mine):
                continue
            known[mine] = theirs
            shape, own = shapes.get(theirs, ()), own_shapes.get(mine, ())
            pairs.append(Pair(label, node.op_type, output, theirs, mine, shape, own))
    return [*pairs, *_same_outputs(suspect, nodes, twins, set(known))] if pairs else []


def _same_outputs(
    suspect: onnx.ModelProto, nodes: _Wiring, twins: _Wiring, known: set[str]
) -> Iterator[Pair]:
    """Yield the graph's floating-point outputs that have no pair yet: the end of all."""
    labels = {value: label for label, node in twins.nodes.items() for value in node.output}
    for value in suspect.graph.output:
        name, shape = value.name, twins.shapes.get(value.name, ())
        if name in known or name not in labels or name not in nodes.producers:
            continue
        floating = value.type.tensor_type.elem_type in _FLOATS
        if floating and nodes.shapes.get(name, ()) == shape:
            node, label = twins.producers[name], labels[name]
            output = list(node.output).index(name)
            yield Pair(label, node.op_type, output, name, name, shape, shape)


@dataclass(frozen=True, slots=True)
class _Form:
    """What like nodes have in common besides their place.

    Attributes:
        operator: The operator.
        outputs: Shape of each output, None where it is unknown.
        weights: Shapes of the constants that feed the node, numbers left out.
    """

    operator: str
    outputs: tuple[tuple[int, ...] | None, ...]
    weights: tuple[tuple[int, ...], ...]

    @staticmethod
    def of(graph: _Wiring, node: onnx.NodeProto) -> _Form:
        """Describe a node of a graph."""
        sources = [graph.source_of(value) for value in node.input]
        weights = tuple(graph.constants[s] for s in sources if graph.constants.get(s))
        return _Form(node.op_type, tuple(graph.shapes.get(v) for v in node.output), weights)

    def fits(self, other: _Form) -> bool:
        """Return whether outputs may be compared: the same operator, and no other shape known."""
        shapes = zip(self.outputs, other.outputs, strict=False)
        return self.operator == other.operator and all(
            mine is None or theirs is None or mine == theirs for mine, theirs in shapes
        )


@dataclass(slots=True)
class _Wiring:
    """A graph without inserted conversions: nodes by label, and who feeds whom.

    Attributes:
        inputs: Names of the graph's inputs.
        producers: Value -> node that computes it.
        nodes: Label -> node, without conversions.
        shapes: Value -> static shape, where it is known.
        constants: Weight -> shape.
    """

    inputs: set[str]
    producers: dict[str, onnx.NodeProto]
    nodes: dict[str, onnx.NodeProto]
    shapes: dict[str, tuple[int, ...]]
    constants: dict[str, tuple[int, ...]]
    _free: dict[tuple[str, str, tuple[str | None, ...]], list[str]] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)

    @staticmethod
    def of(model: onnx.ModelProto) -> _Wiring:
        """Read a model."""
        graph = model.graph
        # Whole numbers of 64 bits are shapes and tables, which say nothing about a module.
        constants = {t.name: tuple(t.dims) for t in graph.initializer if t.data_type != _INT64}
        wiring = _Wiring(
            {value.name for value in graph.input},
            {value: node for node in graph.node for value in node.output},
            {
                node_label(node, k): node
                for k, node in enumerate(graph.node)
                if node.op_type not in INSERTED
            },
            tensor_shapes(model),
            constants,
        )
        for label, node in wiring.nodes.items():
            key = _place(label, node.op_type, wiring.producers_of(node))
            wiring._free.setdefault(key, []).append(label)
        return wiring

    def source_of(self, value: str) -> str:
        """Return what a value was before inserted conversions."""
        while value in self.producers and self.producers[value].op_type in INSERTED:
            value = self.producers[value].input[0]
        return value

    def producers_of(self, node: onnx.NodeProto) -> tuple[str, ...]:
        """Return the computed values that feed a node, seen through conversions; no constants."""
        found = [self.source_of(value) for value in node.input]
        return tuple(name for name in found if name in self.producers or name in self.inputs)

    def take(
        self, label: str, feeding: tuple[str | None, ...], form: _Form, known: set[str]
    ) -> onnx.NodeProto | None:
        """Return the free node that is wired like this one, else the like one of the same name.

        Args:
            label: Of the node in the other graph.
            feeding: Values of this graph that feed its twin, None for those that are not known.
            form: Of the node in the other graph.
            known: Values of this graph that the other has as well.
        """
        wired = self._free.get(_place(label, form.operator, feeding), [])
        same = [x for x in wired if self._may_be(x, form)]
        chosen = label if label in same else next(iter(same), None)
        if chosen is None and label in self.nodes and self._may_be(label, form):
            named = self.nodes[label]
            weighted = form.weights and form.weights == _Form.of(self, named).weights
            rewired = None not in feeding and known.issuperset(self.producers_of(named))
            chosen = label if weighted or rewired else None
        if chosen is None:
            return None
        self._taken.add(chosen)
        return self.nodes[chosen]

    def _may_be(self, label: str, form: _Form) -> bool:
        return label not in self._taken and form.fits(_Form.of(self, self.nodes[label]))


def _place(
    label: str, operator: str, feeding: tuple[str | None, ...]
) -> tuple[str, str, tuple[str | None, ...]]:
    return label.rpartition("/")[0], operator, feeding


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


def matched_inputs(
    model: onnx.ModelProto, pair: Pair, pairs: list[Pair]
) -> tuple[list[Pair], bool]:
    """Return the pairs that feed the node of `pair`, and whether nothing else computed does.

    Inserted conversions are seen through.
    """
    producers = {value: node for node in model.graph.node for value in node.output}
    known = {p.suspect: p for p in pairs}
    found, complete = [], True
    for value in producers[pair.suspect].input:
        name = value
        while name not in known and name in producers and producers[name].op_type in INSERTED:
            name = producers[name].input[0]
        if name in known:
            found.append(known[name])
        elif name in producers:
            complete = False
    return found, complete
