"""`prunus check`: is this file still the network that it was exported from?

The reference is the PyTorch network in float32, rebuilt from the artifact's card, or a float32
artifact. Each back end runs the same real samples; the answer is judged in task units.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prunus.export.common.registry import judged_module, load_samples
from prunus.export.common.samples import LEAST, Samples
from prunus.export.common.sessions import graph_card
from prunus.export.verify.bisect import TOLERANCES, bisect_graphs
from prunus.export.verify.expose import find_tensor, load_model, with_outputs
from prunus.export.verify.report import Report
from prunus.export.verify.saved import Run, RunSet, judge, save_runs
from prunus.runtime.card.artifact import read_card, sha256_of
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.foreign import VARIANT
from prunus.runtime.errors import (
    ArtifactError,
    MissingDependencyError,
    UsageError,
    nearest,
)
from prunus.runtime.progress import Progress, Silent
from prunus.runtime.references import load
from prunus.runtime.session import registry
from prunus.runtime.session.base import InferencePrecision
from prunus.runtime.session.registry import BackendInfo, find, split_word, words
from prunus.runtime.tasks.metrics import Array
from prunus.runtime.tasks.registry import task_named

if TYPE_CHECKING:
    import onnx
    import torch
    from polygraphy.backend.base import BaseRunner

    from prunus.export.verify.runners import SessionRunner

_NETWORK = "network"  # the submodule of a deployed network that returns its scores


@dataclass(frozen=True, slots=True)
class Backend:
    """One way to run an artifact under test.

    Attributes:
        row: The runtime's back end.
        arithmetic: What it multiplies in; a plain name stands for the file's own.
        flavour: TensorRT package that must build an engine first (which needs a GPU); empty: none.
    """

    row: BackendInfo
    arithmetic: InferencePrecision = "f32"
    flavour: str = ""


def known_backends() -> dict[str, Backend]:
    """Return what ``--backend`` may name, from the runtime's registry."""
    found = {}
    for word in words():
        name, arithmetic = split_word(word)
        found[word] = Backend(find(name), "f32" if arithmetic == "auto" else arithmetic)
    for row in registry.BACKENDS:
        if ".onnx" not in row.suffixes:
            found |= {p.module: Backend(row, flavour=p.module) for p in row.packages}
    return found


def check_artifact(
    path: str | Path,
    *,
    samples: Samples | None = None,
    feeds: Feeds | None = None,
    source: str | Path | None = None,
    limit: int = 64,
    backends: Sequence[str] = ("onnxruntime",),
    reference: torch.nn.Module | str | Path | None = None,
    checkpoint: str | Path | None = None,
    bisect: bool = False,
    save: str | Path | None = None,
    budgets: Mapping[str, float] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Compare an artifact with its reference on real inputs.

    Args:
        path: The ``.onnx`` artifact to judge.
        samples: Inputs, prepared as the card's preprocessing says; None takes them from `source`.
        feeds: Whole inputs instead of samples, for graphs whose first axis is no batch axis; with a
            few words about them, which the report repeats.
        source: Where inputs come from, as the model's export script reads it; None: the bundled
            media.
        limit: At most this many samples are taken from `source`.
        backends: Names out of `known_backends`.
        reference: The PyTorch module, or a float32 file of the same network; None rebuilds the
            module from the card, which only a file that prunus exported allows.
        checkpoint: Weights for the rebuilt module; None takes the ones that the card names.
        bisect: Name the first block and node out of tolerance when the check fails.
        save: Where to store inputs and outputs (``.npz``) for `rejudge`.
        budgets: Quantity -> bound that replaces the default.
        threads: Threads of the CPU back ends; None: one.
        progress: Told about each runner.

    Returns:
        The report; `Report.raise_if_failed` turns it into an exit code.

    Raises:
        ArtifactError, UsageError, TensorError: wrong file, back end or inputs.
        HostError: a back end cannot run on this machine.
    """
    steps = progress or Silent()
    chosen = {name: _backend(name) for name in dict.fromkeys(backends)}
    card, workers = read_card(path), threads or 1
    notes: tuple[str, ...] = ()
    if feeds is not None:
        inputs = _Inputs.of(feeds)
    else:
        if samples is None:
            samples, notes = unseen_samples(
                card, lambda count: load_samples(card, source, count), limit
            )
        else:
            given = samples
            samples, notes = unseen_samples(card, lambda _: given, len(given))
        samples.require(card.inputs)
        arrays = {name: np.ascontiguousarray(values) for name, values in samples.arrays.items()}
        inputs = _Inputs(arrays, card.inputs[0].shape[0])
    subject = _Subject.load(path, card)
    believed = _believe(reference, card, checkpoint)
    total = len(chosen) + 1 + bisect
    steps.update(0, total, "reference")
    base = _run_reference(believed, subject, inputs, workers)
    suspects = []
    for k, (name, backend) in enumerate(chosen.items()):
        steps.update(k + 1, total, name)
        suspects.append(_run_suspect(backend, subject, inputs, workers))
    if feeds is not None:
        notes = (f"Inputs: {feeds.told}.",)
    if card.variant == VARIANT:
        notes = ("No PyTorch network stands behind this file, only the other file.", *notes)
    runs = RunSet(
        Path(path).name, sha256_of(path), card, inputs.arrays, base, tuple(suspects), notes
    )
    if save is not None:
        save_runs(runs, save)
    report = judge(runs, budgets)
    if bisect and not report.passed:
        steps.update(total - 1, total, "bisect")
        report = judge(runs, budgets, _bisect(believed, subject, inputs))
    steps.update(total, total)
    return report


def unseen_samples(
    card: ModelCard, take: Callable[[int], Samples], limit: int
) -> tuple[Samples, tuple[str, ...]]:
    """Return samples that judge a file: without those that calibrated it, where it is int8.

    An export calibrates on half of a set and judges on the other (`Samples.halves`); the card holds
    the hash of the first half, by which the set is known again.

    Args:
        card: Of the file.
        take: Takes at most so many samples from a source.
        limit: At most this many are returned.

    Returns:
        Samples, and a sentence for the report where the file was calibrated.
    """
    count, known = card.precision.calibration_samples, card.precision.calibration_sha256
    if known:
        found = take(2 * count)  # as the export did
        if len(found) >= 2 * LEAST and found.halves()[0].sha256 == known:
            return found.halves()[1].first(limit), (
                f"Of {len(found)} {found.noun}, {count} calibrated the file and are left out.",
            )
    samples = take(limit)
    if not known:
        return samples, ()
    if samples.sha256 == known:
        return samples, (
            "These are the very samples that calibrated the file: judged on what it was tuned on.",
        )
    return samples, (
        f"The file was calibrated on {count} samples; this set is not the one they came from.",
    )


@dataclass(frozen=True, slots=True)
class Feeds:
    """Whole inputs of a graph.

    Attributes:
        arrays: One mapping per run, input name -> array of the input's own shape.
        told: What they are, in a few words.
    """

    arrays: Sequence[Mapping[str, Array]]
    told: str


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What every runner gets.

    Attributes:
        arrays: Input name -> samples along axis 0.
        batch: Samples of one run; 0: each is a whole input already.
    """

    arrays: Mapping[str, Array]
    batch: int

    @staticmethod
    def of(feeds: Feeds) -> _Inputs:
        names = feeds.arrays[0] if feeds.arrays else ()
        return _Inputs({n: np.stack([feed[n] for feed in feeds.arrays]) for n in names}, 0)

    def run(self, runner: BaseRunner) -> dict[str, Array]:
        """Return outputs along axis 0."""
        if self.batch:
            found: dict[str, Array] = _runners().run(runner, self.arrays, self.batch)
            return found
        count = len(next(iter(self.arrays.values()), ()))
        feeds = [{n: values[k, ...] for n, values in self.arrays.items()} for k in range(count)]
        found = _runners().run_feeds(runner, feeds)
        return found

    def first(self) -> dict[str, Array]:
        """Return the inputs of one run."""
        if not self.batch:
            return {name: values[0, ...] for name, values in self.arrays.items()}
        return {n: np.resize(v, (self.batch, *v.shape[1:])) for n, v in self.arrays.items()}


@dataclass(frozen=True, slots=True)
class _Subject:
    """An artifact ready to run: scores exposed where they have to be judged.

    Attributes:
        path: The file.
        card: Its card, also when `model` has one more output.
        model: Its graph, with one more output when `renamed` is not empty.
        renamed: Name of the exposed tensor -> ``heatmaps`` or ``logits``.
    """

    path: Path
    card: ModelCard
    model: onnx.ModelProto
    renamed: Mapping[str, str]

    @staticmethod
    def load(path: str | Path, card: ModelCard) -> _Subject:
        """Load a file; an untrained network that hides its scores gets them as an extra output."""
        model = load_model(path)
        hidden = _hidden_scores(card)
        if hidden is None:
            return _Subject(Path(path), card, model, {})
        title, shape = hidden
        name = find_tensor(model, shape, _NETWORK)
        if name is None:
            raise ArtifactError(
                f"{path} has random weights and no {title} {list(shape)} to judge them by.",
                f"Export it with --{title}, or from a trained checkpoint.",
            )
        return _Subject(Path(path), card, with_outputs(model, [name]), {name: title})

    def runner(self, backend: str, arithmetic: InferencePrecision, threads: int) -> SessionRunner:
        """Open the file, or its changed graph, as users would."""
        source: Path | bytes = self.path
        card = self.card
        if self.renamed:
            source, card = self.model.SerializeToString(), graph_card(self.model, card)
        opened: SessionRunner = _runners().open_runner(source, card, backend, arithmetic, threads)
        return opened

    def named(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return outputs under their public names, in float32."""
        return {
            self.renamed.get(k, k): v.astype(np.float32) if v.dtype == np.float16 else v
            for k, v in outputs.items()
        }


def _backend(name: str) -> Backend:
    known = known_backends()
    if name not in known:
        raise UsageError(
            f"Unknown back end '{name}'{nearest(name, list(known))}.",
            f"Known: {', '.join(known)}.",
        )
    return known[name]


def _hidden_scores(card: ModelCard) -> tuple[str, tuple[int, ...]] | None:
    """Return name and shape of the scores that judge random weights, if they are hidden."""
    reference = task_named(card.task).hidden_scores
    return load(reference)(card) if reference else None


def _believe(
    reference: torch.nn.Module | str | Path | None, card: ModelCard, checkpoint: str | Path | None
) -> torch.nn.Module | _Subject:
    if isinstance(reference, str | Path):
        other = read_card(reference)
        if VARIANT in (card.variant, other.variant):
            _require_alike(card, other, reference)
            return _Subject.load(reference, other)
        if other.precision.precision != "fp32" or card.network != other.network:
            raise UsageError(
                f"The reference {reference} is {other.name}; expected fp32 of {card.name} with "
                "the same weights and token plan.",
                "Export the reference with --precision fp32 from the same checkpoint.",
            )
        return _Subject.load(reference, other)
    if reference is not None:
        return reference
    return judged_module(card, checkpoint)


def _require_alike(card: ModelCard, other: ModelCard, reference: str | Path) -> None:
    """Refuse a reference that takes or gives other tensors; whose weights they are nobody knows.

    Raises:
        UsageError: naming what differs.
    """
    for kind, mine, theirs in (
        ("inputs", card.inputs, other.inputs),
        ("outputs", card.outputs, other.outputs),
    ):
        shown = [{s.name: f"{s.dtype} {list(s.shape)}" for s in specs} for specs in (mine, theirs)]
        if shown[0] != shown[1]:
            told = [", ".join(f"{n} {t}" for n, t in one.items()) for one in shown]
            raise UsageError(
                f"The {kind} of the reference {reference} are {told[1]}; expected {told[0]}.",
                "Give the file that this one was made from, with the same names and sizes.",
            )
    if other.precision.precision != "fp32":
        raise UsageError(
            f"Most weights of the reference {reference} are {other.precision.precision}; expected "
            "fp32.",
            "Give the float32 file as the reference.",
        )


def _runners() -> Any:
    """Import the runners late: they need polygraphy and torch, which a saved run does not."""
    try:
        from prunus.export.verify import runners
    except ImportError as error:
        raise MissingDependencyError(error.name or "polygraphy", "check", "prunus check") from None
    return runners


def _run_reference(
    believed: torch.nn.Module | _Subject,
    subject: _Subject,
    inputs: _Inputs,
    threads: int,
) -> Run:
    runners = _runners()
    if isinstance(believed, _Subject):
        batch = believed.card.inputs[0].shape[0] if inputs.batch else 0
        runner = believed.runner("onnxruntime", "f32", threads)
        with runner.session:
            outputs = believed.named(replace(inputs, batch=batch).run(runner))
        return Run(f"{runner.name} on {believed.path.name}", "fp32", outputs)
    exposed = next(iter(subject.renamed.values()), None)
    capture = {_NETWORK: exposed} if exposed else {}
    runner = runners.TorchRunner(believed, subject.card, capture)
    return Run(f"{runner.name} fp32", "fp32", inputs.run(runner))


def _run_suspect(backend: Backend, subject: _Subject, inputs: _Inputs, threads: int) -> Run:
    budget = backend.row.budget(backend.arithmetic, subject.card.precision.precision)
    with _open_runner(backend, subject, threads) as runner:
        outputs = subject.named(inputs.run(runner))
        return Run(runner.name, budget, outputs)


@contextmanager
def _open_runner(backend: Backend, subject: _Subject, threads: int) -> Iterator[BaseRunner]:
    runners = _runners()
    with ExitStack() as stack:
        if not backend.flavour:
            runner = subject.runner(backend.row.name, backend.arithmetic, threads)
            stack.enter_context(runner.session)
            yield runner
            return
        if exposed := next(iter(subject.renamed.values()), None):
            raise UsageError(
                f"Random weights are judged by {exposed}; {subject.path} does not return them.",
                f"Export it with --{exposed} to check an engine.",
            )
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prunus-check-")))
        yield runners.engine_runner(subject.path, backend.flavour, folder, stack)


def _bisect(
    believed: torch.nn.Module | _Subject, subject: _Subject, inputs: _Inputs
) -> tuple[str, ...]:
    """Compare with the reference's own graph, traced afresh when the reference is PyTorch."""
    first = inputs.first()
    tolerance = TOLERANCES[subject.card.precision.precision]
    model: Any
    if isinstance(believed, _Subject):
        if believed.card.inputs[0].shape != subject.card.inputs[0].shape:
            return ("Not bisected: the reference artifact has another batch size.",)
        model = believed.model
    else:
        model = _trace(believed, subject.card)
    return bisect_graphs(model, subject.model, first, tolerance).sentences()


def _trace(module: torch.nn.Module, card: ModelCard) -> Any:
    import torch

    from prunus.export.graph.simplify import simplify
    from prunus.export.graph.trace import trace

    module = getattr(module, "single", module)  # graphs are float32, some references float64
    example = [torch.from_numpy(np.zeros(i.shape, i.dtype)) for i in card.inputs]
    names = [i.name for i in card.inputs], [o.name for o in card.outputs]
    return simplify(trace(module, example, *names))
