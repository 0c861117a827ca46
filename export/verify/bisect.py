"""Name the first block, then the first node, whose value leaves tolerance between two graphs.

Both graphs run on the same input in ONNX Runtime without graph optimisation, with inner tensors
turned into outputs. First the tensors that cross from one block to another are compared, which
finds the block; then every tensor of that block, which finds the node. Choices by score (TopK,
ArgMax) are taken from the reference and judged by their scores, see `selection`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from prunus.export.verify.expose import load_model, with_outputs
from prunus.export.verify.matching import Pair, crossing, matched_inputs, matching_values
from prunus.export.verify.selection import (
    force_choices,
    own_name,
    score_inputs,
    selection_axis,
    selection_error,
    selections,
    swap_notes,
)
from prunus.runtime.errors import CheckFailedError
from prunus.runtime.progress import Progress, Silent
from prunus.runtime.session.base import BackendOptions
from prunus.runtime.session.onnxruntime import load
from prunus.runtime.tasks.metrics import Array, span

if TYPE_CHECKING:
    import onnx

# Largest difference of a value as a share of its range. An EViTPose-Tiny in half precision stays
# near 1e-3 once its selections are aligned; each 8-bit step is off by 4e-3 and blocks add it up.
TOLERANCES: Mapping[str, float] = {"fp32": 1e-4, "fp16": 1e-2, "int8": 2e-1}
_STEADY = 1e-2  # of the magnitude: the least that counts as a range
_CHUNK_BYTES = 128 << 20
_WRITTEN_DIFFERENTLY = (
    "Not all its inputs are in both graphs, which are written differently there: the fault may lie "
    "before it, behind the last value that agrees."
)


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where two graphs part.

    Attributes:
        block: Module path of the block, e.g. ``network.blocks.3``.
        node: Name of the node.
        operator: Its operator.
        error: Largest difference of its output as a share of the reference's range.
        input_error: The same over its inputs: small means that the node itself is at fault.
        tolerance: What was allowed.
        inputs_known: Whether all its inputs are in both graphs: if not, the graphs are written
            differently there, and the fault may lie before the node.
    """

    block: str
    node: str
    operator: str
    error: float
    input_error: float
    tolerance: float
    inputs_known: bool = True


@dataclass(frozen=True, slots=True)
class Bisection:
    """Result of a bisection.

    Attributes:
        divergence: The first node out of tolerance, None when all agree.
        compared: How many values exist in both graphs.
        notes: Choices that differ without fault.
    """

    divergence: Divergence | None
    compared: int
    notes: tuple[str, ...] = ()

    def sentences(self) -> tuple[str, ...]:
        """Return the result for a report, one sentence per line."""
        d = self.divergence
        if d is None:
            return (f"All {self.compared} inner values agree within tolerance.", *self.notes)
        return (
            f"First block out of tolerance: {d.block}",
            f"First node: {d.node} ({d.operator}), off by {d.error:.2g} of its range, allowed "
            f"{d.tolerance:.2g}; its inputs are off by {d.input_error:.2g}.",
            *(() if d.inputs_known else (_WRITTEN_DIFFERENTLY,)),
            *self.notes,
        )


def bisect_graphs(
    reference: str | Any,
    suspect: str | Any,
    inputs: Mapping[str, Array],
    tolerance: float = TOLERANCES["fp32"],
    progress: Progress | None = None,
) -> Bisection:
    """Find where a suspect graph leaves a reference graph.

    Args:
        reference: ONNX file or loaded model that is believed.
        suspect: ONNX file or loaded model of the same network, in any precision.
        inputs: One batch, as both graphs take it.
        tolerance: Allowed difference as a share of each value's range.
        progress: Told about the passes.

    Raises:
        CheckFailedError: the graphs share no named nodes.
        PrunusError: ONNX Runtime refuses one of them.
    """
    report = progress or Silent()
    believed, accused = load_model(reference), load_model(suspect)
    pairs = matching_values(believed, accused)
    if not pairs:
        raise CheckFailedError(
            "The two graphs share no node names, so they cannot be bisected.",
            "Export both with this version of prunus.",
        )
    report.update(0, 3, "selections")
    twin = _Twin.align(believed, accused, pairs, inputs)
    report.update(1, 3, "blocks")
    # A choice counts even when only its own block reads it: forced, it has no effect elsewhere.
    crossed = set(crossing(accused, pairs))
    border = [pair for pair in pairs if pair in crossed or pair in twin.choices]
    first = twin.first_beyond(tolerance, border)
    if first is None:
        report.update(3, 3)
        return Bisection(None, len(pairs), swap_notes(twin.swaps))
    block = first[0].block
    report.update(2, 3, block)
    inside = [pair for pair in pairs if pair.block == block]
    pair, error = twin.first_beyond(tolerance, inside) or first
    sources, complete = matched_inputs(accused, pair, pairs)
    if not complete:  # what crosses is not in both graphs: look at all that is before it
        before = pairs[: pairs.index(pair) + 1]
        pair, error = twin.first_beyond(tolerance, before) or (pair, error)
        sources, complete = matched_inputs(accused, pair, pairs)
    input_error = max((e for _, e in twin.errors(sources)), default=0.0)
    report.update(3, 3)
    found = Divergence(
        pair.block, pair.label, pair.operator, error, input_error, tolerance, complete
    )
    return Bisection(found, len(pairs), swap_notes(twin.swaps))


@dataclass(frozen=True, slots=True)
class _Twin:
    """Two graphs, the inputs that keep them aligned, and what their choices differed by."""

    reference: onnx.ModelProto
    suspect: onnx.ModelProto
    inputs: Mapping[str, Array]
    suspect_inputs: Mapping[str, Array]
    choices: Mapping[Pair, float] = field(default_factory=dict)
    swaps: Mapping[str, int] = field(default_factory=dict)

    @staticmethod
    def align(
        reference: onnx.ModelProto,
        suspect: onnx.ModelProto,
        pairs: Sequence[Pair],
        inputs: Mapping[str, Array],
    ) -> _Twin:
        """Feed the suspect the reference's choices, and judge its own."""
        chosen = selections(pairs)
        if not chosen:
            return _Twin(reference, suspect, inputs, inputs)
        scores = score_inputs(reference, chosen)
        expected = _values(reference, [*scores, *scores.values()], inputs)
        forced = force_choices(suspect, chosen)
        given = {**inputs, **{p.suspect: expected[p.reference] for p in chosen}}
        own = _values(forced, [own_name(p) for p in chosen], given)
        choices, swaps = {}, {}
        for p in chosen:
            choices[p], swaps[p.label] = selection_error(
                expected[scores[p.reference]],
                expected[p.reference],
                own[own_name(p)],
                selection_axis(reference, p),
            )
        return _Twin(reference, forced, inputs, given, choices, swaps)

    def first_beyond(self, tolerance: float, pairs: Sequence[Pair]) -> tuple[Pair, float] | None:
        """Return the first pair out of tolerance and its error, None when all agree."""
        return next(((p, e) for p, e in self.errors(pairs) if not e <= tolerance), None)

    def errors(self, pairs: Sequence[Pair]) -> Iterator[tuple[Pair, float]]:
        """Yield each pair with its error, running both graphs chunk by chunk.

        A pair whose shapes were not known and turn out to differ is no pair.
        """
        for chunk in _chunks(pairs):
            free = [p for p in chunk if p not in self.choices]
            left = _values(self.reference, [p.reference for p in free], self.inputs)
            right = _values(self.suspect, [p.suspect for p in free], self.suspect_inputs)
            for pair in chunk:
                if pair in self.choices:
                    yield pair, self.choices[pair]
                elif left[pair.reference].shape == right[pair.suspect].shape:
                    yield pair, relative_error(left[pair.reference], right[pair.suspect])


def relative_error(expected: Array, got: Array) -> float:
    """Return the largest difference as a share of the reference's range.

    A value that is not finite on one side only is infinitely wrong. Equal infinities (masks) agree.
    """
    a, b = expected.astype(np.float64), got.astype(np.float64)
    if a.shape != b.shape:
        return math.inf
    odd = ~(np.isfinite(a) & np.isfinite(b))
    if odd.any() and not np.array_equal(a[odd], b[odd]):
        return math.inf
    gap = np.abs(a[~odd] - b[~odd])
    if not gap.size:
        return 0.0
    # A value that hardly varies has no range to speak of: float32 rounds by its magnitude.
    return float(gap.max()) / max(span(a), _STEADY * float(np.abs(a[~odd]).max()))


def _values(
    model: onnx.ModelProto, names: Sequence[str], inputs: Mapping[str, Array]
) -> dict[str, Array]:
    """Run a graph and return inner tensors by name."""
    wanted = list(dict.fromkeys(names))
    if not wanted:
        return {}
    known = {value.name for value in model.graph.input}
    ready = {name: inputs[name] for name in wanted if name in known}
    inner = [name for name in wanted if name not in known]
    if not inner:
        return ready
    exposed = with_outputs(model, inner)
    # Inner tensors are on no card, so the library's own session is asked for them by name.
    options = BackendOptions(optimise=False)
    session = load(exposed.SerializeToString(), "the graph", threads=1, options=options)
    feed = {name: value for name, value in inputs.items() if name in known}
    return ready | dict(zip(inner, session.run(inner, feed), strict=True))


def _chunks(pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    """Split pairs so that one run holds a bounded number of bytes."""
    chunk: list[Pair] = []
    held = 0
    for pair in pairs:
        size = 8 * math.prod(pair.suspect_shape)  # float32 on both sides
        if chunk and held + size > _CHUNK_BYTES:
            yield chunk
            chunk, held = [], 0
        chunk.append(pair)
        held += size
    if chunk:
        yield chunk
