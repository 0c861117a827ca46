"""Turn the words of `prunus bench` into runners, and run them in turns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prunus.apps.bench.targets import has_real_inputs, real_inputs
from prunus.apps.common.model_files import find_model
from prunus.apps.registry import APPS
from prunus.runtime.card.artifact import read_card
from prunus.runtime.errors import UsageError, nearest
from prunus.runtime.references import load

if TYPE_CHECKING:
    from prunus.runtime.measure.compare import Comparison
    from prunus.runtime.measure.latency import Clock
    from prunus.runtime.measure.runner import RunnerSpec
    from prunus.runtime.progress import Progress

_AGAINST = {"torch-eager": "eager", "torch-compile": "compile"}
_TARGETS = "prunus.apps.bench.targets"


def runners_for(
    models: Sequence[str],
    backends: Sequence[str],
    against: Sequence[str],
    threads: int | None,
    boundary: str = "engine",
    *,
    device: str = "cpu",
    shapes: Sequence[str] = (),
) -> list[RunnerSpec]:
    """Return one runner per model and back end, those of PyTorch first.

    Args:
        models: Files or shipped names.
        backends: Names as in `session_runner`.
        against: ``torch-eager`` or ``torch-compile``, on the network of the first model.
        threads: CPU threads.
        boundary: ``engine``, or ``pipeline``: boxes to joints, or video to drawn mask.
        device: Of one call; whole pipelines run on the CPU.
        shapes: What stands after ``--shape``, for every model.

    Raises:
        UsageError: an unknown name, a device for whole pipelines, or a task without one.
        ArtifactError: no such model.
    """
    if boundary == "pipeline" and device != "cpu":
        raise UsageError(
            f"Got --device {device}; whole pipelines are measured on the CPU.",
            "Leave it out, or measure with: --boundary engine",
        )
    paths = [find_model(name, shapes) for name in models]
    runners = [torch_runner(word, paths[0], threads) for word in against]
    for path in paths:
        for backend in backends:
            if boundary == "engine":
                runners.append(session_runner(path, backend, threads, device=device))
            else:
                runners.append(_pipeline_runner(path, backend, threads))
    return runners


def _pipeline_runner(path: Path, backend: str, threads: int | None) -> RunnerSpec:
    task = read_card(path).task
    rows = {app.task: app.runner for app in APPS if app.runner}
    if task not in rows:
        raise UsageError(
            f"{path} is of the task '{task}', whose pipeline is not measured.",
            f"Tasks with one: {', '.join(rows)}; or measure with: --boundary engine",
        )
    runner: RunnerSpec = load(rows[task])(path, backend, threads)
    return runner


def session_runner(
    path: Path, backend: str, threads: int | None, name: str = "", *, device: str = "cpu"
) -> RunnerSpec:
    """Return a runner of one call of the session.

    Args:
        path: Model file.
        backend: See `prunus.runtime.measure.runner.benchmarked`.
        threads: CPU threads.
        name: Name in tables, default: file and back end.
        device: See `prunus.runtime.open`.
    """
    from prunus.runtime.measure.runner import RunnerSpec, benchmarked

    plain, options = benchmarked(backend)
    return RunnerSpec(
        name or f"{path.stem} {backend}",
        path=str(path),
        backend=plain,
        device=device,
        options=options,
        threads=threads,
    )


def people_runner(
    path: Path | Sequence[Path], backend: str, threads: int | None, count: int = 1, name: str = ""
) -> RunnerSpec:
    """Return a runner of boxes in, joints in image pixels out, for `count` people."""
    from prunus.runtime.measure.runner import RunnerSpec

    paths = [path] if isinstance(path, Path) else list(path)
    return RunnerSpec(
        name or f"{paths[0].stem} {backend}",
        target=f"{_TARGETS}:people",
        arguments=(backend, str(count), *map(str, paths)),
        threads=threads,
        boundary="pipeline",
    )


def scene_runner(path: Path, backend: str, threads: int | None, name: str = "") -> RunnerSpec:
    """Return a runner of a frame of the bundled clip, from video to drawn mask."""
    from prunus.runtime.measure.runner import RunnerSpec

    return RunnerSpec(
        name or f"{path.stem} {backend}",
        target=f"{_TARGETS}:scene",
        arguments=(backend, str(path)),
        threads=threads,
        boundary="pipeline",
    )


def torch_runner(word: str, path: Path, threads: int | None) -> RunnerSpec:
    """Return a runner of the PyTorch network behind an artifact; raises UsageError."""
    from prunus.runtime.measure.runner import RunnerSpec

    if word not in _AGAINST:
        known = list(_AGAINST)
        raise UsageError(
            f"Unknown opponent '{word}'{nearest(word, known)}.", f"Use one of: {', '.join(known)}"
        )
    return RunnerSpec(
        f"{path.stem} {word} fp32",
        target=f"{_TARGETS}:torch_network",
        arguments=(str(path), _AGAINST[word]),
        threads=threads,
    )


def run_in_turns(
    runners: Sequence[RunnerSpec],
    *,
    rounds: int,
    seconds: float,
    progress: Progress,
    clock: Clock = "wall",
) -> Comparison:
    """Measure runners in turns, on real inputs where they call sessions and such are known.

    Raises:
        UsageError: the models take inputs of different shapes.
    """
    from prunus.runtime.measure.compare import compare

    cards = [read_card(r.path) for r in runners if r.boundary == "engine" and r.path]
    shapes = {tuple((spec.name, spec.shape) for spec in card.inputs) for card in cards}
    if len(shapes) > 1:
        shown = sorted({str([list(s.shape) for s in card.inputs]) for card in cards})
        raise UsageError(
            f"The models take different inputs: {'; '.join(shown)}.",
            "Compare them from box to joints with: --boundary pipeline",
        )
    inputs = real_inputs(cards[0]) if cards and has_real_inputs(cards[0]) else None
    return compare(runners, inputs, rounds=rounds, seconds=seconds, clock=clock, progress=progress)
