"""Which file of a model runs on this device, and whether the parts of a bundle belong together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prunus.apps.common.options import BackendChoice
from prunus.apps.fleet.bundle import Bundle, BundledModel
from prunus.apps.fleet.receipt import Finding
from prunus.runtime.card.artifact import EngineSidecar, read_card, sha256_of
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.foreign import VARIANT
from prunus.runtime.card.graph import read_graph
from prunus.runtime.errors import (
    ArtifactError,
    MissingDependencyError,
    PrunusError,
    UsageError,
)
from prunus.runtime.plugins.library import describe
from prunus.runtime.session.registry import find
from prunus.runtime.session.tensorrt import cuda, match

if TYPE_CHECKING:
    from prunus.export.verify.saved import RunSet


def choose_file(model: BundledModel, folder: Path, compute: BackendChoice) -> Path:
    """Return the file that applications on this device would open.

    A plan, where TensorRT is asked for, or nothing is and this device runs TensorRT; else the
    graph. A plan that does not fit is never replaced by another back end in silence.

    Raises:
        ArtifactError: no plan fits this device; says which there are.
        UsageError: there are no plans at all.
    """
    tensorrt = find("tensorrt")
    if compute.backend not in ("auto", tensorrt.name):
        return folder / model.graph
    usable = any(package.installed for package in tensorrt.packages) and not cuda.why_unusable()
    if compute.backend == "auto" and not (model.plans and usable):
        return folder / model.graph
    if not model.plans:
        raise UsageError(
            f"The bundle has no plan of {model.name}.",
            "Bundle one with --plan, or choose another --backend.",
        )
    wrong = []
    for name in model.plans:
        plan, said = folder / name, EngineSidecar.read(folder / name)
        try:
            if not said.describes(plan):  # a fault of the bundle, which is told later
                return plan
            version = str(match.import_flavour(said.flavour).__version__)
            match.explain_mismatch(plan, said, version, cuda.device_properties())
            return plan
        except (ArtifactError, MissingDependencyError) as error:
            wrong.append(error.message.rstrip(".").replace(str(plan), name))
    raise ArtifactError(
        f"The bundle is missing a plan of {model.name} for this device: {'; '.join(wrong)}.",
        "Build one on such a device (prunus build) and bundle it with --plan.",
    )


def row_of(card: ModelCard, file: Path, arithmetic: str) -> str:
    """Return the row of the budgets for a file and the `arithmetic` of the session that runs it."""
    own = card.precision.precision
    coarser = arithmetic != "f32"
    if file.suffix != ".onnx":
        coarser = EngineSidecar.read(file).half_layer_share > 0
    return "fp16" if coarser and own == "fp32" else own


def examine_parts(
    model: BundledModel, bundle: Bundle, folder: Path, file: Path, runs: RunSet
) -> list[Finding]:
    """Return the parts of a model that were not made for one another."""
    graph = folder / model.graph
    digest = sha256_of(graph)
    found = []

    def add(verdict: str, detail: str) -> None:
        found.append(Finding(verdict, model.name, detail))

    if wrong := _card_mismatch(graph, (folder / model.card).read_text(), runs):
        add("card-mismatch", wrong)
    elif runs.sha256 != digest:
        add("stale-golden", f"its golden outputs are of another file, sha256 {runs.sha256[:12]}")
    if file == graph:
        return found
    said = EngineSidecar.read(file)
    if said.onnx_sha256 != digest:
        origin = said.onnx_sha256[:12]
        add("wrong-plan", f"{file.name} was built from another file, sha256 {origin}")
    elif not said.describes(file):
        add("wrong-plan", f"{file.name} is not the plan that its sidecar describes")
    if said.plugin:
        name = bundle.contents.plugin
        has = describe(folder / name).stamp if name else "none"
        if has != said.plugin:
            add("stale-plugin", f"{file.name} needs {said.plugin}; the bundle has {has}")
    return found


def _card_mismatch(graph: Path, told: str, runs: RunSet) -> str:
    """Return how the card differs from the graph, or from the cards beside it; empty for not."""
    try:
        card = read_card(graph)
        inside = read_graph(graph)
    except PrunusError as error:
        return error.message.rstrip(".")
    if card.to_json() != told:
        return "the card in the graph is not the one that was bundled"
    if runs.card != card:
        return "its golden outputs were made with another card"
    if card.variant == VARIANT:
        return ""
    for kind, specs, values in (
        ("inputs", card.inputs, inside.inputs), ("outputs", card.outputs, inside.outputs)
    ):  # fmt: skip
        promised = {(s.name, s.dtype, s.shape) for s in specs}
        declared = {(v.name, v.dtype, v.shape) for v in values}
        if promised != declared:
            name = sorted(promised ^ declared, key=str)[0][0]
            return f"card and graph differ in the {kind}, first in '{name}'"
    return ""
