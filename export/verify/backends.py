"""Name the first block and node where a back end leaves the reference on one and the same graph.

It needs neither torch nor onnx, so that it runs on a device: inner tensors are made outputs in the
bytes of the file (`runtime.card.exposed`), ONNX Runtime runs it node by node in float32 on the CPU,
and the back end under test beside it. First the values that cross from one block to another are
compared, then all of the block that is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from prunus.export.verify.bisect import Bisection, Divergence, relative_error
from prunus.export.verify.expose import block_of
from prunus.export.verify.selection import INDEX_OUTPUT
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.exposed import with_outputs
from prunus.runtime.card.graph import Node, read_nodes
from prunus.runtime.card.tensors import DTYPES, TensorSpec
from prunus.runtime.session.base import BackendOptions, Session
from prunus.runtime.session.onnxruntime import load
from prunus.runtime.tasks.metrics import Array

Open = Callable[[bytes, ModelCard], Session]
_AT_ONCE = 48  # values of one run: each of them is held twice
_FUSED = (
    "With more inner values shown, the back end computes them as the reference does: the fault "
    "lies in what it joins to one step otherwise."
)


@dataclass(frozen=True, slots=True)
class _Pass:
    """Errors of the values that were compared, and the first one that is off with both arrays."""

    errors: Mapping[str, float]
    first: str = ""
    arrays: tuple[Array, Array] | None = None


@dataclass(frozen=True, slots=True)
class _Both:
    """The reference and a back end under test on one file."""

    path: Path
    card: ModelCard
    feed: Mapping[str, Array]
    open_suspect: Open

    def compare(self, names: Sequence[str], tolerance: float) -> _Pass:
        """Compare values in the given order, up to the first floating-point one that is off."""
        errors: dict[str, float] = {}
        for start in range(0, len(names), _AT_ONCE):
            for name, expected, got in self._values(names[start : start + _AT_ONCE]):
                error = errors[name] = relative_error(expected, got)
                if expected.dtype.kind == "f" and not error <= tolerance:
                    return _Pass(errors, name, (expected, got))
        return _Pass(errors)

    def _values(self, names: Sequence[str]) -> Iterator[tuple[str, Array, Array]]:
        own = {spec.name for spec in self.card.outputs}
        inner = [name for name in names if name not in own]
        options = BackendOptions(optimise=False)
        believed = load(with_outputs(self.path, inner), str(self.path), threads=1, options=options)
        expected = dict(zip(names, believed.run(list(names), dict(self.feed)), strict=True))
        specs = [_spec(name, expected[name]) for name in inner if _is_tensor(expected[name])]
        card = replace(self.card, outputs=(*self.card.outputs, *specs))
        with self.open_suspect(with_outputs(self.path, specs), card) as session:
            got = session.run(self.feed)
        for name in names:
            if name in got:
                yield name, expected[name], got[name]


def bisect_backends(
    path: str | Path,
    card: ModelCard,
    feed: Mapping[str, Array],
    open_suspect: Open,
    tolerance: float,
) -> tuple[Bisection, tuple[Array, Array] | None]:
    """Find where a back end leaves the reference.

    Args:
        path: ONNX file that both run.
        card: Its card.
        feed: One input of the graph.
        open_suspect: Opens the bytes of a graph on the back end under test.
        tolerance: Allowed difference of a value as a share of its range.

    Returns:
        The result, and the reference's and the back end's array of the value that is out of
        tolerance; None when all agree.

    Raises:
        PrunusError: one of the back ends refuses the graph with its inner tensors shown.
    """
    nodes = [n for n in read_nodes(path)[0] if not n.inner]
    both = _Both(Path(path), card, feed, open_suspect)
    makers = {name: node for node in nodes for name in node.outputs if name}
    borders = both.compare(_borders(nodes, makers, {s.name for s in card.outputs}), tolerance)
    if not borders.first:
        return Bisection(None, len(borders.errors), (_FUSED,)), None
    block = block_of(_label(makers[borders.first]))
    before = list(makers)[: list(makers).index(borders.first) + 1]
    inside = both.compare([n for n in before if block_of(_label(makers[n])) == block], tolerance)
    # Where more values are shown, less is joined: a fault of the joined form is then gone.
    found, notes = (inside, ()) if inside.first else (borders, (_FUSED,))
    node = makers[found.first]
    errors = {**borders.errors, **inside.errors, **found.errors}
    fed = max((errors.get(name, 0.0) for name in node.inputs if name in makers), default=0.0)
    divergence = Divergence(
        block_of(_label(node)), _label(node), node.operator, found.errors[found.first], fed,
        tolerance, all(name in errors for name in node.inputs if name in makers),
    )  # fmt: skip
    notes = (*notes, *_choices(errors, makers))
    return Bisection(divergence, len(errors), notes), found.arrays


def _borders(nodes: Sequence[Node], makers: Mapping[str, Node], outputs: set[str]) -> list[str]:
    """Return values that another block reads, that leave the graph, or that are choices by score.

    They are in the graph's order.
    """
    crossing = set(outputs)
    for node in nodes:
        block = block_of(_label(node))
        crossing |= {n for n in node.inputs if n in makers and block_of(_label(makers[n])) != block}
        if node.operator in INDEX_OUTPUT:
            crossing |= {*node.outputs[INDEX_OUTPUT[node.operator] :][:1]}
    return [name for name in makers if name in crossing]


def _label(node: Node) -> str:
    """Return a node's name; where it has none, what it computes says more than its number."""
    nameless = node.name.startswith(f"{node.operator}#") and node.outputs
    return next(filter(None, node.outputs), node.name) if nameless else node.name


def _is_tensor(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.size > 0 and value.dtype.name in DTYPES


def _spec(name: str, value: Array) -> TensorSpec:
    axes = tuple(f"axis{k}" for k in range(value.ndim))
    return TensorSpec(name, value.dtype.name, value.shape, axes)


def _choices(errors: Mapping[str, float], makers: Mapping[str, Node]) -> tuple[str, ...]:
    """Say which choices by score differ: what is behind a swapped one differs without fault."""
    chosen = [
        _label(makers[name]) for name, error in errors.items()
        if error > 0 and (operator := makers[name].operator) in INDEX_OUTPUT
        and makers[name].outputs.index(name) == INDEX_OUTPUT[operator]
    ]  # fmt: skip
    if not chosen:
        return ()
    return (f"{chosen[0]} chose other indices: near ties may, and what is behind them differs.",)
