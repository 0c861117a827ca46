"""`prunus inspect`: what a model file is, from its card; numpy is all it needs."""

from __future__ import annotations

import collections
import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from prunus.apps.cli.options import Debug, Json
from prunus.runtime.card.card import ModelCard, TensorSpec, TokenPlan

_BAR = 40  # characters of a full bar in the token picture


def inspect(
    model: Annotated[str, typer.Argument(help="ONNX file, engine, or shipped name.")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show the card, the tensors, the token plan and the operators of a model file.

    \b
    Examples:
      prunus inspect evitpose-tiny-L2.onnx
      prunus inspect movenet_multipose --json
    """
    from prunus.apps.common.model_files import find_model
    from prunus.runtime.card.artifact import read_card, sha256_of

    path = find_model(model)
    card = read_card(path)
    operators = operator_counts(path)
    if as_json:
        body: dict[str, Any] = {
            "file": path.name,
            "bytes": path.stat().st_size,
            "sha256": sha256_of(path),
            "card": json.loads(card.to_json()),
            "operators": operators,
        }
        typer.echo(json.dumps(body, indent=1, sort_keys=True))
        return
    typer.echo("\n".join(describe(path, card, operators)))


def describe(path: Path, card: ModelCard, operators: dict[str, int] | None) -> list[str]:
    """Return the lines of the human-readable report."""
    from prunus.runtime.card.artifact import sha256_of

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
        pools = card.task == "segmentation"
        lines += ["", *(key_picture if pools else token_picture)(card.tokens)]
    if operators is None:
        lines += ["", "  operators are listed when the package 'onnx' is installed"]
    elif operators:
        common = ", ".join(f"{name} {count}" for name, count in operators.items())
        lines += ["", f"  {sum(operators.values())} nodes: {common}"]
    return lines


def token_picture(plan: TokenPlan) -> list[str]:
    """Return one bar of patch tokens per stretch of blocks, and the MACs.

    Tokens are dropped inside a pruning block, after its attention; the bar of a block shows what
    leaves it.
    """
    share = plan.macs / plan.macs_dense if plan.macs_dense else 1.0
    lines = [
        f"  token plan {plan.level}: {plan.tokens} patch tokens enter, {plan.special} joint tokens "
        f"are never dropped (score: {plan.score}, fill: {plan.fill})"
    ]
    left, start = plan.tokens, 0
    for block, keep in zip(plan.blocks, plan.keep, strict=True):
        if block > start:
            lines.append(_bar(f"blocks {start}-{block - 1}", left, plan.tokens))
        left, start = keep, block
    lines.append(_bar(f"blocks {start}-end" if plan.blocks else "all blocks", left, plan.tokens))
    lines.append(
        f"  {plan.macs / 1e9:.3f} GMACs, {100 * share:.1f} % of the {plan.macs_dense / 1e9:.3f} "
        f"GMACs without dropping ({1 / share:.2f}x fewer)"
    )
    return lines


def key_picture(plan: TokenPlan) -> list[str]:
    """Return the keys that each part of a pooling network attends to, and the MACs."""
    parts = [*(f"stage {k}" for k in range(1, 5)), *(f"decoder 1/{s}" for s in (8, 16, 32))]
    share = plan.macs / plan.macs_dense if plan.macs_dense else 1.0
    lines = [f"  ISR {plan.level}: {plan.tokens} tokens enter, none is dropped; keys are pooled to"]
    lines += [f"  {part:>12} {keys:6d} keys" for part, keys in zip(parts, plan.keep, strict=False)]
    lines.append(
        f"  {plan.macs / 1e9:.3f} GMACs, {100 * share:.1f} % of the {plan.macs_dense / 1e9:.3f} "
        f"GMACs with the trained pooling ({1 / share:.2f}x fewer)"
    )
    return lines


def operator_counts(path: Path) -> dict[str, int] | None:
    """Return operator -> count, most frequent first; None without the onnx package."""
    if path.suffix != ".onnx":
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


def _bar(label: str, left: int, total: int) -> str:
    filled = round(_BAR * left / total)
    bar = "#" * filled + "." * (_BAR - filled)
    return f"  {label:>12} |{bar}| {left:4d} ({100 * left / total:.0f} %)"


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
