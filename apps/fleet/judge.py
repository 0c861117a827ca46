"""What is wrong with the answers of a device: by budget, by pattern, by place."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prunus.apps.common.options import BackendChoice
from prunus.apps.fleet import symptoms
from prunus.apps.fleet.bundle import BundledModel
from prunus.apps.fleet.make import run_feeds
from prunus.apps.fleet.plans import row_of
from prunus.apps.fleet.receipt import Finding
from prunus.runtime.card.card import ModelCard
from prunus.runtime.errors import PrunusError
from prunus.runtime.session.base import BackendOptions, BaseSession
from prunus.runtime.session.base import open as open_session
from prunus.runtime.session.registry import find
from prunus.runtime.tasks.metrics import Array, Outputs

if TYPE_CHECKING:
    from prunus.export.verify.report import Comparison
    from prunus.export.verify.saved import RunSet

_DISTINCT = 16  # values of an output below which equal bits may be chance
_REFERENCE = "onnxruntime"


@dataclass(frozen=True, slots=True)
class Subject:
    """One model on this device.

    Attributes:
        model: As bundled.
        graph: Its ONNX file.
        file: What runs: the graph, or a plan of it.
        card: Card of the graph.
        runs: Golden inputs and the reference's outputs.
        compute: Where it runs.
    """

    model: BundledModel
    graph: Path
    file: Path
    card: ModelCard
    runs: RunSet
    compute: BackendChoice

    @property
    def feeds(self) -> list[dict[str, Array]]:
        """The golden inputs one by one, each of the graph's own shape."""
        stacked = self.runs.inputs
        return [
            dict(zip(stacked, map(np.ascontiguousarray, feed), strict=True))
            for feed in zip(*stacked.values(), strict=True)
        ]

    def finding(self, verdict: str, detail: str) -> Finding:
        """Return a finding about this model."""
        return Finding(verdict, self.model.name, detail.rstrip("."))

    def compare(self, row: str, outputs: Outputs, expected: Outputs | None = None) -> Comparison:
        """Judge outputs by the bundle's budget for a number format.

        Args:
            row: ``fp32``, ``fp16`` or ``int8``.
            outputs: Output name -> (n, ...) array.
            expected: The same of the reference; None: the golden ones.
        """
        from prunus.export.verify.saved import Run, judge

        budget = next(b for b in self.model.budgets if b.row == row)
        believed = self.runs.reference
        if expected is not None:
            believed = replace(believed, outputs=expected)
        runs = replace(self.runs, reference=believed, suspects=(Run("this device", row, outputs),))
        bounds = {limit.quantity: limit.value for limit in budget.limits}
        return judge(runs, bounds).comparisons[0]


def judge_outputs(
    subject: Subject, session: BaseSession, outputs: Outputs
) -> tuple[dict[str, Any], list[Finding]]:
    """Compare what a session answered with the golden outputs.

    Args:
        subject: The model.
        session: What answered; closed or not.
        outputs: Output name -> (n, ...) array.

    Returns:
        What a receipt says, and the faults.
    """
    row = row_of(subject.card, subject.file, session.arithmetic)
    comparison = subject.compare(row, outputs)
    result: dict[str, Any] = {
        "row": row,
        "effect": dict(comparison.effect),
        "limits": [dataclasses.asdict(verdict) for verdict in comparison.verdicts],
        "notes": list(comparison.notes),
    }
    cpu = functools.cache(lambda name: _on_cpu(subject, name))
    if elsewhere := _elsewhere(subject, session, outputs, cpu):
        return result, [subject.finding("cpu-fallback", elsewhere)]
    expected = subject.runs.reference.outputs
    coarse = symptoms.format_of(expected, outputs) if row == "fp32" else None
    if comparison.passed:
        return result, [subject.finding(coarse.verdict, coarse.detail)] if coarse else []
    told = _first_failure(comparison)
    if session.backend != _REFERENCE and not subject.compare(row, cpu(_REFERENCE)).passed:
        detail = f"{told}; on the CPU of this device as well: graph and golden outputs differ"
        return result, [subject.finding("reference-differs", detail)]
    symptom = coarse or symptoms.find_symptom(expected, outputs)
    if symptom.verdict == symptoms.WRONG and (flipped := _flipped_input(subject, row, outputs)):
        symptom = symptoms.Symptom(symptoms.SWAPPED, flipped)
    result["bisect"], inside = _bisect(subject, session.backend, row)
    if symptom.verdict == symptoms.WRONG and inside is not None:
        symptom = inside
    place = next((s.rstrip(".") for s in result["bisect"] if s.startswith("First node")), "")
    detail = "; ".join(filter(None, (told, symptom.detail, place)))
    return result, [subject.finding(symptom.verdict, detail)]


def _first_failure(comparison: Comparison) -> str:
    for verdict in comparison.verdicts:
        if not verdict.passed:
            limit = verdict.limit
            return f"{limit.quantity} is {verdict.measured:.4g}, allowed {limit.describe()}"
    return comparison.problems[0].rstrip(".")


def _on_cpu(subject: Subject, backend: str) -> dict[str, Array]:
    """Return what a back end computes in float32 on the CPU of this device; nothing: it cannot."""
    row = find(backend)
    if ".onnx" not in row.suffixes or "cpu" not in row.devices:
        return {}
    switches = BackendOptions(inference_precision="f32")
    with open_session(
        subject.graph, backend, threads=subject.compute.threads, options=switches
    ) as session:
        return run_feeds(session, subject.feeds)


def _elsewhere(
    subject: Subject, session: BaseSession, outputs: Outputs, cpu: Callable[[str], Outputs]
) -> str:
    """Return how it is known that another device computed than was asked for; empty for not.

    A GPU, an NPU, a plan or a coarser number format that returns every bit of what the CPU computes
    in float32 did not compute.
    """
    on_cpu, nodes = session.elsewhere
    if nodes and on_cpu == nodes:
        return f"all {nodes} nodes run on the CPU"
    plain = subject.compute.device.partition(":")[0] == "cpu" and session.arithmetic == "f32"
    if plain and subject.file == subject.graph:
        return ""
    telling = [
        name for name, values in outputs.items()
        if values.dtype.kind == "f" and len(np.unique(values)) >= _DISTINCT
    ]  # fmt: skip
    for name in dict.fromkeys((_REFERENCE, session.backend)) if telling else ():
        twin = cpu(name)
        if twin and all(np.array_equal(outputs[n], twin[n]) for n in telling):
            return (
                f"suspiciously identical: every bit of {', '.join(telling)} is what "
                f"{find(name).label} computes on the CPU in float32"
            )
    return ""


def _flipped_input(subject: Subject, row: str, outputs: Outputs) -> str:
    """Return which axis of three colours the device reads backwards; empty for none."""
    for spec in subject.card.inputs:
        for axis in {1, len(spec.shape) - 1} if len(spec.shape) == 4 else ():
            if spec.shape[axis] != 3:
                continue
            feeds = [
                {**feed, spec.name: np.ascontiguousarray(np.flip(feed[spec.name], axis))}
                for feed in subject.feeds
            ]
            with open_session(subject.graph, _REFERENCE, threads=1) as session:
                flipped = run_feeds(session, feeds)
            if subject.compare(row, outputs, flipped).passed:
                return f"input '{spec.name}': axis {axis} ({spec.axes[axis]}) is read backwards"
    return ""


def _bisect(subject: Subject, backend: str, row: str) -> tuple[list[str], symptoms.Symptom | None]:
    """Return where the back end leaves the reference, and a symptom of the values there."""
    from prunus.export.verify.backends import bisect_backends
    from prunus.export.verify.bisect import TOLERANCES

    if subject.file != subject.graph:
        return ["Not bisected: a plan does not show its inner values."], None
    named = {**subject.compute.keywords(), "backend": backend}
    try:
        found, values = bisect_backends(
            subject.graph, subject.card, subject.feeds[0],
            lambda data, card: open_session(data, card=card, **named), TOLERANCES[row],
        )  # fmt: skip
    except PrunusError as error:
        return [f"Not bisected: {error.message}"], None
    if found.divergence is None or values is None or row != "fp32":
        return list(found.sentences()), None
    name = found.divergence.node
    return list(found.sentences()), symptoms.format_of({name: values[0]}, {name: values[1]})
