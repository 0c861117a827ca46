"""Saved runs: inputs and outputs of a check in one file, judged again later with other budgets.

The file is a numpy ``.npz`` without pickles. ``meta`` is JSON with the card, the artifact's hash
and the hash of every array, so a damaged or edited file is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prunus.export.verify.report import Comparison, Report, Verdict
from prunus.runtime.arrays import read_arrays
from prunus.runtime.card.artifact import atomic_path
from prunus.runtime.card.card import ModelCard
from prunus.runtime.errors import ArtifactError, CheckFailedError
from prunus.runtime.tasks.limits import Limit, override
from prunus.runtime.tasks.metrics import (
    Array,
    Outputs,
    differences,
    metric_for,
    non_finite,
    spread,
)

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Run:
    """Outputs of one runner over all samples.

    Attributes:
        name: Back end, device and version, e.g. ``onnxruntime 1.32.0``.
        precision: Row of the budget when it is a suspect; unused for the reference.
        outputs: Output name -> array stacked over the samples.
    """

    name: str
    precision: str
    outputs: Outputs


@dataclass(frozen=True, slots=True)
class RunSet:
    """Everything that a verdict needs.

    Attributes:
        artifact: File name of the checked artifact, without its folder.
        sha256: Its hash.
        card: Its card.
        inputs: Input name -> array stacked over the samples.
        reference: What is believed.
        suspects: What is judged.
        notes: What else the report says of each comparison.
    """

    artifact: str
    sha256: str
    card: ModelCard
    inputs: Outputs
    reference: Run
    suspects: tuple[Run, ...]
    notes: tuple[str, ...] = ()


def judge(
    runs: RunSet,
    budgets: Mapping[str, float] | None = None,
    divergence: tuple[str, ...] = (),
) -> Report:
    """Apply the task's budget to a set of runs.

    Args:
        runs: Reference and suspects over the same samples.
        budgets: Quantity -> bound that replaces the default.
        divergence: Sentences of a bisection to carry along.

    Raises:
        CheckFailedError: the outputs cannot be compared at all.
        UsageError: no metric for the task, or an unknown quantity in `budgets`.
    """
    metric = metric_for(runs.card)
    rows = [metric.limits(runs.card, suspect.precision) for suspect in runs.suspects]
    override(tuple(limit for row in rows for limit in row), budgets)  # refuses unknown names
    comparisons = tuple(
        _compare(runs, s, row, budgets) for s, row in zip(runs.suspects, rows, strict=True)
    )
    samples = len(next(iter(runs.inputs.values()), ()))
    digest = hash_arrays(runs.inputs)
    return Report(
        runs.artifact, runs.sha256, runs.card.name, samples, digest, comparisons, divergence
    )


def _compare(
    runs: RunSet, suspect: Run, row: tuple[Limit, ...], budgets: Mapping[str, float] | None
) -> Comparison:
    expected = runs.reference.outputs
    raw = differences(expected, suspect.outputs)  # first: it refuses what cannot be compared
    found = metric_for(runs.card).measure(expected, suspect.outputs, runs.card)
    own = {m.quantity for m in row}
    limits = override(row, {k: v for k, v in (budgets or {}).items() if k in own})
    if unknown := [m.quantity for m in limits if m.quantity not in found.values]:
        raise CheckFailedError(
            f"The budget names {unknown}, which these outputs do not allow to measure.",
            "Export with --heatmaps, or check with trained weights.",
        )
    verdicts = tuple(
        Verdict(m, found.values[m.quantity], m.holds(found.values[m.quantity])) for m in limits
    )
    problems = (
        *non_finite(expected, runs.reference.name),
        *non_finite(suspect.outputs, suspect.name),
    )
    return Comparison(
        reference=runs.reference.name,
        suspect=suspect.name,
        budget=suspect.precision,
        differences=raw,
        effect=found.values,
        verdicts=verdicts,
        problems=problems,
        notes=(
            *runs.notes,
            *found.notes,
            *spread(expected, suspect.outputs, runs.card, [m.quantity for m in limits]),
        ),
    )


def save_runs(runs: RunSet, path: str | Path) -> Path:
    """Write a run set to `path` (``.npz``), atomically; returns the path.

    Raises:
        SourceError, HostError: the folder cannot be written, or the disk is full.
    """
    arrays: dict[str, Any] = _arrays(runs)
    everyone = (runs.reference, *runs.suspects)
    meta = {
        "format": _FORMAT,
        "artifact": runs.artifact,
        "sha256": runs.sha256,
        "card": runs.card.to_json(),
        "notes": list(runs.notes),
        "runs": [{"name": r.name, "precision": r.precision} for r in everyone],
        "arrays": {name: hash_arrays({name: value}) for name, value in arrays.items()},
    }
    text = np.frombuffer(json.dumps(meta, sort_keys=True, allow_nan=False).encode(), dtype=np.uint8)
    target = Path(path)
    with atomic_path(target) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, meta=text, **arrays)
    return target


def load_runs(path: str | Path) -> RunSet:
    """Read a run set; raises ArtifactError when the file is missing, foreign or damaged."""
    again = "Save the runs again: prunus check MODEL.onnx --save RUNS.npz"
    if not Path(path).is_file():
        raise ArtifactError(f"Saved runs not found: {path}.", again)
    try:
        arrays = read_arrays(path, "meta")
        meta: dict[str, Any] = json.loads(arrays.pop("meta").tobytes())
        if meta["format"] != _FORMAT:
            raise ArtifactError(
                f"{path} has run format {meta['format']}; this prunus reads {_FORMAT}.", again
            )
        for name, digest in meta["arrays"].items():
            if hash_arrays({name: arrays[name]}) != digest:
                raise ArtifactError(f"Array '{name}' in {path} does not match its hash.", again)
        runs = [
            Run(entry["name"], entry["precision"], _group(arrays, f"run{i}"))
            for i, entry in enumerate(meta["runs"])
        ]
        return RunSet(
            meta["artifact"],
            meta["sha256"],
            ModelCard.from_json(meta["card"]),
            _group(arrays, "input"),
            runs[0],
            tuple(runs[1:]),
            tuple(map(str, meta.get("notes", ()))),
        )
    except ArtifactError:
        raise
    except Exception as error:  # of the arrays or the JSON: the file is not ours, or is broken
        raise ArtifactError(f"{path} is not a file of saved runs ({error}).", again) from error


def rejudge(path: str | Path, budgets: Mapping[str, float] | None = None) -> Report:
    """Judge saved runs again, with other limits if wanted, without running any model.

    Example:
        ``rejudge("runs.npz", {"mean_px": 0.3}).passed``
    """
    return judge(load_runs(path), budgets)


def hash_arrays(arrays: Outputs) -> str:
    """Return the hex SHA-256 over names, types, shapes and contents, in name order."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {value.dtype.str} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def _arrays(runs: RunSet) -> dict[str, Array]:
    flat = {f"input/{name}": value for name, value in runs.inputs.items()}
    for i, run in enumerate((runs.reference, *runs.suspects)):
        flat |= {f"run{i}/{name}": value for name, value in run.outputs.items()}
    return flat


def _group(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    start = f"{prefix}/"
    return {k[len(start) :]: v for k, v in arrays.items() if k.startswith(start)}
