"""`prunus inspect`: what a model file says about itself."""

from __future__ import annotations

import collections
import dataclasses
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunus.runtime.command import Console
from prunus.runtime.errors import CheckFailedError
from prunus.runtime.options import argument

if TYPE_CHECKING:
    from prunus.runtime.card.card import ModelCard
    from prunus.runtime.card.tensors import TensorSpec


@dataclass(frozen=True, slots=True)
class InspectOptions:
    """What `prunus inspect` does.

    \b
    Examples:
      prunus inspect evitpose-tiny-L2.onnx
      prunus inspect movenet_multipose --json
    """

    model: str = argument("ONNX file, engine, or listed name.")


def inspect(options: InspectOptions, console: Console) -> None:
    """Show the card, the tensors, the token plan and the operators of a model file.

    Raises:
        CheckFailedError: the file is an engine, and not the one of its sidecar.
    """
    from prunus.apps.common.model_files import find_model
    from prunus.runtime.card.artifact import EngineSidecar, read_card, sha256_of

    path = find_model(options.model)
    engine = path.suffix in (".engine", ".plan")
    sidecar = EngineSidecar.read(path) if engine else None
    card = read_card(path) if sidecar is None else sidecar.card
    other = sidecar is not None and not sidecar.describes(path)
    operators = operator_counts(path)
    body: dict[str, Any] = {
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": sha256_of(path),
        "card": json.loads(card.to_json()),
        "operators": operators,
    }
    if sidecar is not None:
        body["sidecar"] = {k: v for k, v in dataclasses.asdict(sidecar).items() if k != "card"}
        body["sidecar_describes_engine"] = not other
    text = "\n".join(describe(path, card, operators))
    console.say(text, json.dumps(body, indent=1, sort_keys=True))
    if sidecar is not None and other:
        raise CheckFailedError(
            f"{path} is not the engine of its sidecar, which says sha256 "
            f"{sidecar.engine_sha256[:16]}.",
            "What is shown belongs to another file. Copy both together, or build again with: "
            "prunus build MODEL.onnx",
        )


def describe(path: Path, card: ModelCard, operators: dict[str, int] | None) -> list[str]:
    """Return the lines of the human-readable report."""
    from prunus.runtime.card.artifact import sha256_of
    from prunus.runtime.references import load
    from prunus.runtime.tasks.registry import task_named

    weights = card.weights
    lines = [
        f"{path.name}  {path.stat().st_size / 1e6:.2f} MB  sha256 {sha256_of(path)[:16]}",
        f"  model      {card.model} {card.variant} ({card.task})",
        f"  paper      {card.paper}",
        f"  licence    code {card.licence}, weights {weights.licence}",
        f"  weights    {weights.origin}{'' if weights.trained else '  ** not trained **'}",
        f"  precision  {_precision(card)}",
        f"  exporter   {card.exporter}",
        *_tensors("input", card.inputs),
        *_tensors("output", card.outputs),
        *_processing(card),
    ]
    if card.tokens is not None:
        lines += ["", *load(task_named(card.task).plan_lines)(card.tokens)]
    if operators is None:
        lines += ["", "  operators are listed when the package 'onnx' is installed"]
    elif operators:
        common = ", ".join(f"{name} {count}" for name, count in operators.items())
        lines += ["", f"  {sum(operators.values())} nodes: {common}"]
    return lines


def operator_counts(path: Path) -> dict[str, int] | None:
    """Return operator -> count, most frequent first; None without the onnx package."""
    if path.suffix in (".engine", ".plan"):
        return {}
    if importlib.util.find_spec("onnx") is None:
        return None
    import onnx

    from prunus.runtime.errors import ArtifactError

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception as error:  # protobuf's own errors differ between its versions
        raise ArtifactError(f"{path} is damaged: {error}.", "Export or copy it again.") from error
    counts = collections.Counter(
        f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in graph.node
    )
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _precision(card: ModelCard) -> str:
    spec = card.precision
    parts: list[str] = [spec.precision]
    if spec.kept_higher:
        parts.append(f"kept higher: {', '.join(spec.kept_higher)}")
    if spec.quantiser:
        parts.append(f"{spec.quantiser}, {spec.calibration_samples} calibration samples")
    if spec.also_within_budget:
        parts.append(f"within budget in {', '.join(spec.also_within_budget)} too")
    return "; ".join(parts)


def _tensors(kind: str, specs: tuple[TensorSpec, ...]) -> list[str]:
    lines = []
    for spec in specs:
        limits = "" if spec.minimum is None else f", {spec.minimum:g}..{spec.maximum:g}"
        lines.append(f"  {kind:<10} {spec.describe()} unit {spec.unit}{limits}")
    return lines


def _processing(card: ModelCard) -> list[str]:
    lines = []
    for label, part in (("before", card.preprocess), ("after", card.postprocess)):
        if part is None:
            continue
        values = {k: v for k, v in dataclasses.asdict(part).items() if not isinstance(v, tuple)}
        text = ", ".join(f"{k}={v}" for k, v in values.items() if k != "kind")
        lines.append(f"  {label:<10} {text}")
    return lines
