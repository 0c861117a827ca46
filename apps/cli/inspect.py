"""`prunus inspect`: what a model file says about itself."""

from __future__ import annotations

import collections
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunus.apps.common import options as shared
from prunus.runtime.command import Console
from prunus.runtime.errors import ArtifactError, CheckFailedError, UsageError
from prunus.runtime.json_text import json_text
from prunus.runtime.options import argument, option

if TYPE_CHECKING:
    from prunus.runtime.card.card import ModelCard
    from prunus.runtime.card.graph import Graph, Value
    from prunus.runtime.card.tensors import TensorSpec


@dataclass(frozen=True, slots=True)
class InspectOptions:
    """What `prunus inspect` does.

    \b
    Examples:
      prunus inspect evitpose-tiny-L2.onnx
      prunus inspect movenet_multipose --json
      prunus inspect evitpose-tiny-L2.onnx --tokens person.jpg -o survivors.png
      prunus inspect evitpose-tiny-npu.onnx --npu
    """

    model: str = argument("ONNX file, engine, or listed name.")
    shape: tuple[str, ...] = shared.shape()
    tokens: Path | None = option(
        "Draw which tokens of this picture survive each cut.", default=None, metavar="PICTURE"
    )
    output: Path | None = shared.output("The drawing; default: tokens.png.")
    npu: bool = option(
        "Hold the operators against the list of OpenVINO's compiler for NPUs, and name what is "
        "chosen by the data.", default=False,
    )  # fmt: skip


def inspect(options: InspectOptions, console: Console) -> None:
    """Show the card, the tensors, the token plan and the operators of a model file.

    Raises:
        CheckFailedError: the file is an engine, and not the one of its sidecar.
    """
    from prunus.apps.common.model_files import find_model
    from prunus.runtime.card.artifact import EngineSidecar, sha256_of
    from prunus.runtime.card.graph import read_graph

    path = find_model(options.model, options.shape)
    if options.tokens is not None:
        _draw_tokens(path, options.tokens, options.output or Path("tokens.png"), console)
        return
    if options.output is not None:
        raise UsageError("Got -o without --tokens; expected a picture to draw on.")
    engine = path.suffix in (".engine", ".plan")
    sidecar = EngineSidecar.read(path) if engine else None
    card, problem = _card(path) if sidecar is None else (sidecar.card, None)
    other = sidecar is not None and not sidecar.describes(path)
    operators = {} if engine else operator_counts(path)
    body: dict[str, Any] = {
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": sha256_of(path),
        "card": None if card is None else json.loads(card.to_json()),
        "operators": operators,
    }
    if sidecar is not None:
        body["sidecar"] = {k: v for k, v in dataclasses.asdict(sidecar).items() if k != "card"}
        body["sidecar_describes_engine"] = not other
    graph = None if engine else read_graph(path)
    if graph is not None:
        body["graph"] = dataclasses.asdict(graph)
    lines: list[str] = []
    if card is not None:
        lines = describe(path, card)
    elif graph is not None and problem is not None:
        body["problem"] = {"message": problem.message, "hint": problem.hint}
        lines = _describe_graph(path, graph, problem)
    lines += _operators(operators)
    if graph is not None:
        lines += _beside(path, graph)
    if options.npu:
        if engine:
            raise UsageError(f"Got --npu for the engine {path}; expected an ONNX file.")
        body["npu"], told = _npu(path)
        lines += told
    text = "\n".join(lines)
    console.say(text, json_text(body, indent=1))
    if sidecar is not None and other:
        raise CheckFailedError(
            f"{path} is not the engine of its sidecar, which says sha256 "
            f"{sidecar.engine_sha256[:16]}.",
            "What is shown belongs to another file. Copy both together, or build again with: "
            "prunus build MODEL.onnx",
        )


def _draw_tokens(path: Path, picture: Path, output: Path, console: Console) -> None:
    from prunus.export.verify.survivors import draw, find_survivors
    from prunus.runtime.card.artifact import atomic_path, write_error
    from prunus.runtime.pictures.opencv import load_cv2

    if output.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UsageError(f"Got -o {output}; expected a name ending in .png or .jpg.")
    found = find_survivors(path, picture)
    coded, data = load_cv2().imencode(output.suffix, draw(found))
    assert coded, "OpenCV writes PNG and JPEG"
    with atomic_path(output) as temporary:
        try:
            temporary.write_bytes(data.tobytes())
        except OSError as error:
            raise write_error(error, output) from None
    told = ", ".join(f"{count} after block {block}" for block, count in found.counts.items())
    rows, columns = found.grid
    body = {
        "grid": found.grid, "blocks": {str(b): c.tolist() for b, c in found.maps.items()},
        "output": str(output),
    }  # fmt: skip
    console.say(f"wrote {output}  {rows} x {columns} tokens: {told}", json_text(body))


def _card(path: Path) -> tuple[ModelCard | None, ArtifactError | None]:
    """Return the card of an ONNX file, or why a file without one cannot be run as it is."""
    from prunus.runtime.card.artifact import read_card
    from prunus.runtime.card.card import CARD_KEY
    from prunus.runtime.card.graph import read_graph, read_metadata

    try:
        return read_card(path), None
    except ArtifactError as error:
        if CARD_KEY in read_metadata(path):
            raise
        read_graph(path)  # a damaged file stays an error
        return None, error


def _describe_graph(path: Path, graph: Graph, problem: ArtifactError) -> list[str]:
    """Return the lines about a file that says what it takes, but cannot be run as it is."""
    return [
        f"{path.name}  {path.stat().st_size / 1e6:.2f} MB, without a card, from "
        f"{graph.producer or 'an unknown program'}",
        *(f"  input      {_declared(value)}" for value in graph.inputs),
        *(f"  output     {_declared(value)}" for value in graph.outputs),
        "",
        f"  does not run as it is: {problem.message}",
        f"  {problem.hint}",
    ]


def _declared(value: Value) -> str:
    axes = ", ".join("?" if n is None else str(n) for n in value.shape or ())
    shape = f"[{axes}]" if value.shape is not None else "no shape"
    return f"{value.name} {value.dtype or value.kind} {shape}"


def describe(path: Path, card: ModelCard) -> list[str]:
    """Return the lines of the human-readable report, without the operators."""
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
    return lines


def _operators(counts: dict[str, int]) -> list[str]:
    if not counts:
        return []
    told = ", ".join(f"{name} {count}" for name, count in counts.items())
    return ["", f"  {sum(counts.values())} nodes: {told}"]


def _npu(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return what stands in an NPU's way, as values and as lines."""
    import onnx

    from prunus.export.graph.npu import chosen_by_data
    from prunus.runtime.session.openvino.npu import npu_operators

    found = npu_operators(path)
    chosen = [str(problem) for problem in chosen_by_data(onnx.load(path))]
    body = {**dataclasses.asdict(found), "chosen_by_data": chosen}
    told = ", ".join(f"{name} {count}" for name, count in found.counts.items())
    fits = f"lacks {', '.join(found.unknown)}" if found.unknown else "has all of them"
    more = f" and {len(chosen) - 3} more" if len(chosen) > 3 else ""
    return body, [
        "",
        f"  NPU operators: {told}",
        f"  the list of {found.source} {fits}; no NPU was asked",
        f"  chosen by the data: {'; '.join(chosen[:3]) or 'nothing'}{more}",
    ]


def _beside(path: Path, graph: Graph) -> list[str]:
    """Return lines about what the file needs besides itself: other files, other operators."""
    from prunus.runtime.card.graph import read_nodes

    lines = []
    for name in graph.data_files:
        place = path.parent / name
        size = f"{place.stat().st_size / 1e6:.2f} MB" if place.is_file() else "missing"
        lines.append(f"  weights in {name} ({size})")
    nodes, functions = read_nodes(path)
    own = {n.title: n for n in nodes if n.domain and (n.domain, n.operator) not in functions}
    lines += [
        f"  {title} (node '{node.name}') is not ONNX's own: a back end must know it"
        for title, node in sorted(own.items())
    ]
    return lines


def operator_counts(path: Path) -> dict[str, int]:
    """Return operator -> count in the graph itself, most frequent first."""
    from prunus.runtime.card.graph import read_nodes

    counts = collections.Counter(node.title for node in read_nodes(path)[0] if not node.inner)
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
        # Names and colours of classes and joints are long; a mean is not.
        values = {
            k: v
            for k, v in dataclasses.asdict(part).items()
            if not isinstance(v, tuple) or len(v) <= 3
        }
        text = ", ".join(f"{k}={v}" for k, v in values.items() if k != "kind")
        lines.append(f"  {label:<10} {text}")
    return lines
