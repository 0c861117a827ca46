"""`prunus bundle`: models, their plans, and what a device must answer, in one signed folder."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import prunus
from prunus.apps.common.model_files import find_model
from prunus.apps.fleet.bundle import (
    Budget,
    BundledModel,
    BundleFile,
    Contents,
    open_bundle,
    write_bundle,
)
from prunus.apps.fleet.options import BundleOptions
from prunus.apps.fleet.signing import sign
from prunus.runtime.card.artifact import EngineSidecar, plain_name, read_card, sha256_of
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.graph import read_graph
from prunus.runtime.command import Console
from prunus.runtime.errors import ArtifactError, CheckFailedError, UsageError
from prunus.runtime.json_text import json_text
from prunus.runtime.measure.runner import example_inputs, samples
from prunus.runtime.plugins.library import PluginLibrary, describe
from prunus.runtime.progress import Progress
from prunus.runtime.session.base import BackendOptions, Session
from prunus.runtime.session.base import open as open_session
from prunus.runtime.tasks.limits import override
from prunus.runtime.tasks.metrics import Array, metric_for, non_finite

_ROWS = ("fp32", "fp16", "int8")  # a looser one for each coarser number format
_NOISE = 8


@dataclass(frozen=True, slots=True)
class _Source:
    """A model to bundle: its name, its graph and card, its plans, and what is believed."""

    name: str
    graph: Path
    card: ModelCard
    sha256: str
    plans: tuple[Path, ...]
    reference: Path


def bundle(options: BundleOptions, console: Console) -> None:
    """Write a signed bundle.

    Raises:
        UsageError: two models of one name, a file of lower precision without its reference, inputs
            or budgets that do not fit, or a bundle of that name.
        ArtifactError: no such model, plan, plugin or key, or parts that do not belong together.
        CheckFailedError: a reference whose own answers are not finite.
    """
    target = options.output or Path(f"{plain_name(Path(options.model[0]).stem)}.bundle")
    if target.exists():
        raise UsageError(f"{target} exists.", "Remove it, or choose another folder with -o.")
    sign(b"", "", options.key)  # refuses a wrong key before the work
    sources = _sources(options)
    library = _plugin(options.plugin, [plan for source in sources for plan in source.plans])
    with tempfile.TemporaryDirectory(prefix="prunus-golden-") as work:
        files: dict[str, Path] = {library.path.name: library.path} if library else {}
        models = []
        with console.progress("bundle") as progress:
            for k, source in enumerate(sources):
                progress.update(k, len(sources), source.name)
                model, own = _bundled(source, options, Path(work), progress)
                models.append(model)
                if doubled := sorted(set(own) & set(files)):
                    raise UsageError(f"Two files are named {doubled[0]}.", "Rename one of them.")
                files |= own
        contents = Contents(
            target.name.removesuffix(".bundle"), f"prunus {prunus.__version__}",
            tuple(BundleFile(n, sha256_of(p), p.stat().st_size) for n, p in sorted(files.items())),
            tuple(models), library.path.name if library else "",
        )  # fmt: skip
        write_bundle(contents, files, target, options.key)
    made = open_bundle(target)
    lines = [f"wrote {target}  sha256 {made.digest[:12]}  signer {made.signature.signer}"]
    for model in models:
        lines.append(f"{model.name}  {len(model.plans)} plans, golden: {model.reference}")
        lines += [f"  {b.row:<5} {', '.join(map(_told, b.limits))}" for b in model.budgets]
    found = {"bundle": str(target), "digest": made.digest, "signer": made.signature.signer,
             "models": [model.name for model in models]}  # fmt: skip
    console.say("\n".join(lines), json_text(found, indent=1))


def _told(limit: Any) -> str:
    return f"{limit.quantity} {limit.describe()}"


def _sources(options: BundleOptions) -> list[_Source]:
    paths = [find_model(word, options.shape) for word in options.model]
    names = [plain_name(path.stem) for path in paths]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"Got two models named {', '.join(doubled)}.", "Rename one of the files.")
    sidecars = {plan: EngineSidecar.read(plan) for plan in options.plan}
    references = [find_model(str(path)) for path in options.reference]
    sources = []
    for name, path in zip(names, paths, strict=True):
        if path.suffix != ".onnx":
            raise UsageError(
                f"{path} is an engine; a bundle is made of ONNX files and their plans.",
                f"Give the file that it was built from, and --plan {path}.",
            )
        if data := read_graph(path).data_files:
            raise UsageError(
                f"{path} keeps weights in {data[0]} beside it.",
                "Write it as one file: onnx.save(model, path) without external data.",
            )
        card, digest = read_card(path), sha256_of(path)
        plans = tuple(plan for plan, said in sidecars.items() if said.onnx_sha256 == digest)
        sources.append(_Source(name, path, card, digest, plans, _reference(path, card, references)))
    believed = {source.reference for source in sources}
    if unused := [reference for reference in references if reference not in believed]:
        raise UsageError(
            f"{unused[0]} is the reference of no model here.",
            "It must be the float32 file of a model in another number format, and its very inputs.",
        )
    for plan, said in sidecars.items():
        if all(plan not in source.plans for source in sources):
            raise ArtifactError(
                f"{plan} was built from no model of this bundle (sha256 {said.onnx_sha256[:12]}).",
                f"Build it again: prunus build {sources[0].graph}",
            )
        if not said.describes(plan):
            raise ArtifactError(
                f"{plan} is not the file that its sidecar describes (SHA-256 differs).",
                "Build it again: prunus build MODEL.onnx",
            )
    return sources


def _reference(path: Path, card: ModelCard, references: Sequence[Path]) -> Path:
    """Return the float32 file of a network: itself, or the one of the references."""
    if card.precision.precision == "fp32":
        return path
    for reference in references:
        other = read_card(reference)
        alike = other.network == card.network and other.inputs == card.inputs
        if alike and other.precision.precision == "fp32":
            return reference
    raise UsageError(
        f"{path} is {card.precision.precision}; what a device must answer comes from the "
        "float32 file of the same network and batch.",
        "Give it with --reference FILE.",
    )


def _plugin(chosen: Path | None, plans: Sequence[Path]) -> PluginLibrary | None:
    stamps = {said.plugin: plan for plan in plans if (said := EngineSidecar.read(plan)).plugin}
    library = describe(chosen) if chosen is not None else None
    for stamp, plan in stamps.items():
        if library is None or library.stamp != stamp:
            raise ArtifactError(
                f"{plan} needs the plugin {stamp}; got {library.stamp if library else 'none'}.",
                "Give the library that it was built with: --plugin FILE.",
            )
    return library


def _bundled(
    source: _Source, options: BundleOptions, work: Path, progress: Progress
) -> tuple[BundledModel, dict[str, Path]]:
    from prunus.apps.cli.check import parse_budgets
    from prunus.export.verify.saved import Run, RunSet, save_runs

    feeds, about = golden_inputs(source.graph, source.card, options)
    switches = BackendOptions(optimise=False)
    with open_session(
        source.reference, "onnxruntime", threads=options.threads, options=switches
    ) as session:
        answers = run_feeds(session, feeds)
        said = (
            f"{len(feeds)} x {about}, {source.reference.name} in float32, node by node, in "
            f"{session.description.partition(',')[0]}"
        )
    if problems := non_finite(answers, source.reference.name):
        raise CheckFailedError(problems[0], "Its own answers are no measure for a device.")
    stacked = {name: np.stack([feed[name] for feed in feeds]) for name in feeds[0]}
    runs = RunSet(
        source.graph.name, source.sha256, source.card, stacked, Run(said, "fp32", answers), ()
    )
    metric = metric_for(source.card)
    rows = _ROWS[_ROWS.index(source.card.precision.precision) :]
    own = parse_budgets(options.budget)
    tables = {row: metric.limits(source.card, row) for row in rows}
    known = {limit.quantity for limits in tables.values() for limit in limits}
    if strange := [quantity for quantity in own if quantity not in known]:
        override(tables[rows[0]], {strange[0]: 0.0})  # says what there is
    budgets = tuple(
        Budget(row, override(limits, {m.quantity: own[m.quantity] for m in limits
                                      if m.quantity in own}))
        for row, limits in tables.items()
    )  # fmt: skip
    files = {f"{source.name}.onnx": source.graph}
    card = files[f"{source.name}.card.json"] = work / f"{source.name}.card.json"
    card.write_text(source.card.to_json())
    golden = files[f"{source.name}.golden.npz"] = work / f"{source.name}.golden.npz"
    save_runs(runs, golden)
    plans = {f"{source.name}-{plan.name}": plan for plan in source.plans}
    for name, plan in plans.items():
        files[name] = plan
        files[EngineSidecar.path_for(name).name] = EngineSidecar.path_for(plan)
    model = BundledModel(
        source.name, f"{source.name}.onnx", card.name, golden.name, said, tuple(plans), budgets
    )
    return model, files


def golden_inputs(
    path: Path, card: ModelCard, options: BundleOptions
) -> tuple[list[dict[str, Array]], str]:
    """Return whole inputs of a graph and a few words about them.

    Real ones: what ``--input`` gives, else crops, frames or sounds as the task's own scripts make
    them; uniform noise for a network of which nothing is known.

    Raises:
        UsageError, TensorError, SourceError: inputs that do not fit.
        MissingDependencyError: the task's script needs a package that is not installed.
    """
    from prunus.apps.bench.targets import has_real_inputs, real_inputs
    from prunus.apps.generic.inputs import read_feed

    if options.input:
        feed, notes = read_feed(card, options.input)
        return [feed], "; ".join(notes)
    if has_real_inputs(card):
        return samples(card, real_inputs(card, options.samples)), "bundled media or its like"
    count = min(options.samples, _NOISE)
    return [example_inputs(card, seed) for seed in range(count)], "uniform noise"


def run_feeds(session: Session, feeds: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Return the outputs of a session along axis 0, as `export.verify` stacks whole inputs."""
    runs = [session.run(feed) for feed in feeds]
    return {name: np.concatenate([np.atleast_1d(run[name]) for run in runs]) for name in runs[0]}
