"""Selections (TopK, ArgMax, ArgMin): let a suspect use the reference's indices, judge its own.

Where two scores nearly tie, either choice is right, but everything behind it is then computed from
other tokens. With the reference's indices fed in, both graphs stay aligned token for token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from prunus.export.verify.matching import Pair
from prunus.runtime.tasks.metrics import Array, span

if TYPE_CHECKING:
    import onnx

INDEX_OUTPUT = {"TopK": 1, "ArgMax": 0, "ArgMin": 0}


def selections(pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs that are indices chosen by score, of equal shape in both graphs."""
    return [p for p in pairs if INDEX_OUTPUT.get(p.operator) == p.output and p.same_shape]


def own_name(pair: Pair) -> str:
    """Return the name under which a forced suspect reports its own choice."""
    return f"{pair.suspect}__own"


def force_choices(suspect: onnx.ModelProto, chosen: Sequence[Pair]) -> onnx.ModelProto:
    """Return a copy of the graph that takes the indices of `chosen` as inputs of their own name."""
    import onnx
    from onnx import TensorProto, helper

    copy = onnx.ModelProto()
    copy.CopyFrom(suspect)
    graph = copy.graph
    forced = {pair.suspect: pair for pair in chosen}
    for node in graph.node:
        node.output[:] = [own_name(forced[v]) if v in forced else v for v in node.output]
    for name, pair in forced.items():
        shape = list(pair.suspect_shape)
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, shape))
    for group in (graph.output, graph.value_info):
        kept = [value for value in group if value.name not in forced]
        del group[:]
        group.extend(kept)
    return copy


def score_inputs(model: onnx.ModelProto, chosen: Sequence[Pair]) -> dict[str, str]:
    """Return the name of the scores behind each selection: index value -> score value."""
    names = {pair.reference for pair in chosen}
    return {v: n.input[0] for n in model.graph.node for v in n.output if v in names}


def selection_axis(model: onnx.ModelProto, pair: Pair) -> tuple[int, bool, bool]:
    """Return (axis, keeps the largest, keeps the axis) of the reference's selection node."""
    node = next(n for n in model.graph.node if pair.reference in n.output)
    attributes = {a.name: a.i for a in node.attribute}
    if node.op_type == "TopK":
        return attributes.get("axis", -1), bool(attributes.get("largest", 1)), True
    return attributes.get("axis", 0), node.op_type == "ArgMax", bool(attributes.get("keepdims", 1))


def selection_error(
    scores: Array, expected: Array, own: Array, axis: tuple[int, bool, bool]
) -> tuple[float, int]:
    """Judge a choice by the scores that it was made from.

    Two rankings whose scores differ by at most e may swap entries that lie up to 2 e apart, so half
    the gap between an entry that was lost and one that was gained is the error that explains it.

    Args:
        scores: The reference's scores.
        expected: Indices that the reference chose.
        own: Indices that the suspect chose, same shape.
        axis: From `selection_axis`.

    Returns:
        Half the largest gap as a share of the scores' range, and how many entries differ.
    """
    where, largest, keeps = axis
    if not keeps:
        expected, own = np.expand_dims(expected, where), np.expand_dims(own, where)
    table = np.moveaxis(scores.astype(np.float64), where, -1).reshape(-1, scores.shape[where])
    width = expected.shape[where]
    left = np.moveaxis(expected, where, -1).reshape(-1, width)
    right = np.moveaxis(own, where, -1).reshape(-1, width)
    worst, swapped = 0.0, 0
    for row, wanted, got in zip(table, left, right, strict=True):
        lost, gained = np.setdiff1d(wanted, got), np.setdiff1d(got, wanted)
        if not lost.size:
            continue
        swapped += int(lost.size)
        high, low = (lost, gained) if largest else (gained, lost)
        worst = max(worst, float(row[high].max() - row[low].min()))
    return worst / 2 / span(scores), swapped


def swap_notes(counts: Mapping[str, int]) -> tuple[str, ...]:
    """Return one sentence per selection that chose differently without fault."""
    return tuple(
        f"{label}: {count} near-tied choice(s) differ; the reference's were used behind it."
        for label, count in counts.items()
        if count
    )
