"""`prunus card add`: give the ONNX file of another exporter a card, so that it opens like ours.

The graph stays as it is, apart from sizes that are fixed on the way: no node is added, no weight is
touched. Before the file takes its name it is checked, opened and run once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from prunus.export.common.pipeline import exporter_name, require_writable
from prunus.export.graph.audit import audit
from prunus.export.graph.shapes import Shape, fix_shapes, is_sized, is_split, load_graph
from prunus.runtime.card.artifact import atomic_path, sha256_of, write_error
from prunus.runtime.card.card import CARD_KEY, ModelCard, Weights
from prunus.runtime.card.foreign import UNKNOWN, foreign_card, require_fixed
from prunus.runtime.card.graph import Graph, read_graph, read_metadata
from prunus.runtime.errors import ArtifactError, PrunusError, UsageError, nearest
from prunus.runtime.measure.runner import example_inputs
from prunus.runtime.references import load
from prunus.runtime.session.base import open as open_session
from prunus.runtime.tasks.adopting import picture_part
from prunus.runtime.tasks.metrics import non_finite
from prunus.runtime.tasks.segmentation.card import ScenePreprocess

Words = Mapping[str, Any]

# Task -> function (card, before, after) that completes the card of a foreign graph, or refuses one
# whose tensors do not fit.
ADOPTERS = {
    "generic": f"{__name__}:adopt",
    "pose": "prunus.export.pose.foreign:adopt",
    "segmentation": "prunus.export.segmentation.foreign:adopt",
}
_SHOWN = 3  # problems of the graph that are told


@dataclass(frozen=True, slots=True)
class About:
    """What the file does not say itself.

    Attributes:
        task: What it is for.
        name: Its name; empty: the file's.
        licence: Of the weights.
        origin: Where they come from, one sentence.
        shapes: Input name -> sizes to fix.
        before: How pictures become the input, by the fields of the card's part.
        after: How outputs are read.
    """

    task: str = "generic"
    name: str = ""
    licence: str = UNKNOWN
    origin: str = UNKNOWN
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    before: Words = field(default_factory=dict)
    after: Words = field(default_factory=dict)


def add_card(
    path: str | Path, output: str | Path, about: About | None = None
) -> tuple[ModelCard, tuple[str, ...]]:
    """Write a copy of an ONNX file that carries a card.

    Args:
        path: ONNX file without a card. Weights that lie in files beside it go into the copy; where
            one file cannot hold them they stay, and the copy must be written to the same folder.
        output: Where the copy goes.
        about: What the file does not say itself.

    Returns:
        The card, and lines about what was seen: operators that some back end may refuse, outputs
        that are not finite.

    Raises:
        UsageError: the file has a card already, an unknown task, a shape or word that does not fit.
        ArtifactError: the file is damaged, holds NaN weights, has sizes that depend on the data,
            tensors that do not fit the task, or an operator that ONNX Runtime does not have.
    """
    path, output, about = Path(path), Path(output), about or About()
    adopter = _adopter(about.task)
    if CARD_KEY in read_metadata(path):
        raise UsageError(f"{path} has a card already.", f"Read it with: prunus inspect {path.name}")
    graph = read_graph(path)
    _require_place(path, output)
    model = _fixed(path, graph, about.shapes)
    if is_split(model) and output.absolute().parent != path.absolute().parent:
        raise UsageError(
            f"{path} keeps its weights in {', '.join(graph.data_files)}, too large for one file, "
            f"and {output} would lie in another folder.",
            f"Write it beside them: -o {path.parent / output.name}",
        )
    _require_sound(path, model)
    card = adopter(_card(path, model, graph, about), about.before, about.after)
    entry = model.metadata_props.add()
    entry.key, entry.value = CARD_KEY, card.to_json()
    remarks = tuple(f"some back end may refuse it: {p}" for p in audit(model)[:_SHOWN])
    with atomic_path(output) as temporary:
        try:
            temporary.write_bytes(model.SerializeToString(deterministic=True))
        except OSError as error:
            raise write_error(error, output) from None
        remarks += _run(temporary, path)
    return card, remarks


def _adopter(task: str) -> Callable[[ModelCard, Words, Words], ModelCard]:
    if task not in ADOPTERS:
        known = sorted(ADOPTERS)
        raise UsageError(
            f"No card of the task '{task}' can be added{nearest(task, known)}; its files come from "
            "prunus export.",
            f"Choose one of: {', '.join(known)} (--task).",
        )
    found: Callable[[ModelCard, Words, Words], ModelCard] = load(ADOPTERS[task])
    return found


def _require_place(path: Path, output: Path) -> None:
    require_writable(output)
    if output.absolute() == path.absolute():
        raise UsageError(f"The result would replace its own source {path}.", "Choose another -o.")


def _fixed(path: Path, graph: Graph, shapes: Mapping[str, Shape]) -> onnx.ModelProto:
    if not shapes:  # an open input is told before anything is inferred
        require_fixed(path, replace(graph, outputs=()))
    model = load_graph(path)
    loose = any(not is_sized(value) for value in model.graph.output)
    return fix_shapes(path, shapes) if shapes or loose else model


def _require_sound(path: Path, model: onnx.ModelProto) -> None:
    """Refuse a graph that is not valid ONNX, or whose weights hold NaN.

    Raises:
        ArtifactError: naming the reason, or the tensor.
    """
    try:
        if is_split(model):
            onnx.checker.check_model(str(path))
        else:
            onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        reason = next((s for s in str(error).splitlines() if s.strip()), type(error).__name__)
        raise ArtifactError(
            f"{path} is not valid ONNX: {reason.strip()[:300]}.", "Export it again."
        ) from error
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor, base_dir=str(path.parent))
        if values.dtype.kind not in "fV" or not values.size:
            continue
        bad = int(np.isnan(values.astype(np.float32)).sum())
        if bad:
            raise ArtifactError(
                f"The weights '{tensor.name}' of {path} hold {bad} NaN in {values.size} values.",
                "The training went wrong, or the file is damaged: export it again.",
            )


def _card(path: Path, model: onnx.ModelProto, graph: Graph, about: About) -> ModelCard:
    """Return what the tensors tell and what is said about the file, still without a task."""
    base = foreign_card(path, model.SerializeToString())
    hashes = [sha256_of(path), *(sha256_of(path.parent / name) for name in graph.data_files)]
    joined = hashlib.sha256("".join(hashes).encode()).hexdigest()
    silent = f"{UNKNOWN}: the card was added to {path.name}"
    weights = Weights(
        silent if about.origin == UNKNOWN else about.origin,
        hashes[0] if len(hashes) == 1 else joined,
        about.licence,
        True,
    )
    written = f", card added by {exporter_name()}"
    return replace(
        base,
        task=about.task,
        model=about.name or base.model,
        licence=about.licence,
        exporter=f"{base.exporter}{written}",
        weights=weights,
    )


def _run(temporary: Path, path: Path) -> tuple[str, ...]:
    """Open the file and run it once on noise; returns a line for every output that is not finite.

    Raises:
        PrunusError: it cannot be opened, or does not compute what it declares.
    """
    try:
        with open_session(temporary, "onnxruntime") as session:
            outputs = session.run(example_inputs(session.card))
    except PrunusError as error:
        error.message = error.message.replace(str(temporary), str(path))
        raise
    return non_finite(outputs, "a run on noise")


def adopt(card: ModelCard, before: Words, after: Words) -> ModelCard:
    """Complete a card of the task ``generic``: how pictures go in, where that is said.

    Raises:
        ArtifactError: words about pictures that do not fit, or about outputs, which nothing reads.
    """
    if after:
        raise ArtifactError(
            f"Got --after {', '.join(after)}, but nothing reads the outputs of a generic network.",
            "Leave it out, or choose a task that does: --task segmentation or pose.",
        )
    return replace(card, preprocess=picture_part(card, ScenePreprocess, before)) if before else card


def require_one_input(card: ModelCard) -> None:
    """Refuse several inputs for a task that feeds pictures alone; raises ArtifactError."""
    if len(card.inputs) != 1:
        told = ", ".join(spec.describe() for spec in card.inputs)
        raise ArtifactError(
            f"A {card.task} network takes one picture; {card.model} takes {told}.",
            "Add a card of the task generic, or make the other inputs constants of the graph.",
        )


def misfit(card: ModelCard, wanted: str) -> ArtifactError:
    """Return the error of a first output that is not what a task reads."""
    told = ", ".join(spec.describe() for spec in card.outputs) or "none"
    return ArtifactError(
        f"The first output of a {card.task} network is {wanted}; {card.model} gives {told}.",
        "Add a card of the task generic, or cut the graph where it fits "
        "(onnx.utils.extract_model).",
    )
