"""From a network to a plan: measure, drop what saves nothing, judge, choose the best.

One road for everything that is compared: each candidate becomes a file, the files run in turns,
each in its own process, and those that are in the search are judged on the very back end.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from prunus.export.common.options import takes
from prunus.export.common.pipeline import run_torch
from prunus.export.common.samples import full_batches
from prunus.export.common.sessions import run_samples
from prunus.export.module import describe, read_inputs, weights_hash
from prunus.export.planning.candidates import Field, survey, write_all
from prunus.export.planning.choice import read_budget, recommend
from prunus.export.planning.judge import Judge, Score, find_score, load_labelled
from prunus.export.planning.options import PlanOptions
from prunus.export.planning.points import Candidate, Point
from prunus.export.planning.record import BackendPlan, Plan
from prunus.export.planning.staircase import drop_flat
from prunus.runtime import host
from prunus.runtime.errors import (
    HostError,
    MissingDependencyError,
    SourceError,
    UsageError,
    nearest,
)
from prunus.runtime.measure.compare import RunnerResult, compare
from prunus.runtime.measure.latency import environment
from prunus.runtime.measure.runner import RunnerSpec, benchmarked
from prunus.runtime.progress import Progress
from prunus.runtime.session.base import open as open_session
from prunus.runtime.session.registry import find, split_word, words

_TOGETHER = 8  # processes in one run, dense in each: all of them stay in memory
_WHOLE = 100  # steps of the progress shown
_FEEDS = 4  # inputs that a network on the clock cycles through


@takes(PlanOptions)
def make_plan(options: PlanOptions, progress: Progress) -> Plan:
    """Find out which tokens to drop, or whether to drop any.

    Args:
        options: See `PlanOptions`; its fields may be given by name instead.
        progress: Told about each step.

    Returns:
        Everything that was measured, and the best on each back end. Nothing is written.

    Raises:
        UsageError: what was asked for does not fit the network, before anything is measured.
        PrunusError: the dense network cannot be exported or run.
    """
    budget = read_budget(options.budget) if options.budget else None
    for backend in options.backend:
        _require_backend(backend)
    for path, suffix in ((options.output, ".json"), (options.plot, ".png")):
        require_target(path, suffix)
    score = find_score(options.score)
    field = survey(options, _Part(progress, 0, 10))
    judge = _judge(field, score)
    with tempfile.TemporaryDirectory() as folder:
        files = write_all(field, judge.labelled.samples, Path(folder), _Part(progress, 10, 50))
        plans = []
        for number, backend in enumerate(options.backend):
            low, high = (50 + 50 * k / len(options.backend) for k in (number, number + 1))
            stage = _Stage(options, files, judge, _Part(progress, low, high))
            points, told = stage.measure(backend, [c for c in field.candidates if c.name in files])
            points = stage.judged(backend, drop_flat(points))
            best = recommend(points, budget, options.lose)
            plans.append(BackendPlan(backend, told, tuple(points), best))
    return Plan(
        network=options.network,
        inputs=options.inputs,
        restore=options.restore,
        grid=options.grid,
        outputs=options.outputs,
        weights_sha256=weights_hash(field.network),
        depth=field.depth,
        tokens=field.tokens,
        judged=judge.kind,
        judgement=judge.describe(),
        samples=len(judge.labelled.samples),
        samples_sha256=judge.labelled.samples.sha256,
        noise=judge.labelled.noise,
        budget=budget,
        lose=options.lose,
        clock=options.clock,
        environment=environment(options.threads),
        notes=tuple(field.notes),
        backends=tuple(plans),
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """Progress of a part of the work, from one percentage of it to another."""

    whole: Progress
    low: float
    high: float

    def update(self, done: int, total: int, note: str = "") -> None:
        share = done / total if total else 0.0
        self.whole.update(round(self.low + (self.high - self.low) * share), _WHOLE, note)


def _require_backend(word: str) -> None:
    """Refuse what cannot run an .onnx file here, or not in that arithmetic.

    Raises:
        UsageError: no such back end.
        HostError: its package is missing, or this CPU lacks bfloat16; sessions refuse that too,
            but only after minutes of exports.
    """
    if word not in (*words(), "auto"):
        raise UsageError(
            f"Cannot plan for the back end '{word}'{nearest(word, list(words()))}.",
            f"Choose of: {', '.join(words())}.",
        )
    name, arithmetic = split_word(word)
    if name != "auto" and not (info := find(name)).installed:
        raise MissingDependencyError(info.packages[0].module, info.extra, "Planning for it")
    if arithmetic == "bf16" and not host.bfloat16_flag():
        raise HostError(
            f"Got --backend {word}; the CPU ({host.cpu_model()}) has no bfloat16 arithmetic.",
            f"Plan on a CPU that has it, or with --backend {name}-f32.",
        )


def require_target(path: Path | None, suffix: str) -> None:
    """Refuse a file that could not be written in the end; raises UsageError or SourceError."""
    if path is None:
        return
    if path.suffix != suffix or path.is_dir():
        raise UsageError(f"Got the output '{path}'; expected a name ending in {suffix}.")
    folder = path.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise SourceError(f"The folder {folder} does not exist, or is read-only.", "Create it.")


def _judge(field: Field, score: Score | None) -> Judge:
    """Return the judge of the field; refuses outputs of which it could tell nothing."""
    options = field.options
    deployed = field.make(field.candidates[0])
    inputs = read_inputs(options.inputs)
    card = describe(deployed, field.module_options(), "dense", inputs)
    labelled = load_labelled(card, options.calibration, options.samples)
    dense = run_torch(deployed, card, labelled.samples, deployed.outputs)
    judge = Judge(labelled, dense, score, options.score or "")
    if score is None:
        cut = next((c for c in field.candidates if c.keep), field.candidates[0])
        with torch.no_grad():
            made = field.make(cut)(*field.examples())
        shapes = {tuple(o.shape[1:]) for o in made if o.is_floating_point()}
        if shapes.isdisjoint(array.shape[1:] for array in dense.values()):
            raise UsageError(
                f"No output of {cut.name} has the shape of a dense one: {sorted(shapes)}; their "
                "likeness cannot be measured.",
                "Give --score with a function of your own, or all tokens again: --restore scatter.",
            )
    return judge


@dataclass(frozen=True, slots=True)
class _Stage:
    """Where files run: on the clock, and before the judge."""

    options: PlanOptions
    files: Mapping[str, Path]
    judge: Judge
    progress: Progress

    def measure(self, backend: str, entrants: Sequence[Candidate]) -> tuple[list[Point], str]:
        """Return all candidates on the clock, and how the back end describes itself.

        In groups, dense first in each: ratios are to the dense of the same turn.
        """
        samples = self.judge.labelled.samples
        batch = read_inputs(self.options.inputs)[0].shape[0]
        batches = full_batches(samples.arrays, batch)[:_FEEDS]
        inputs = {n: np.stack([one[n] for one in batches]) for n in batches[0]}
        dense, *others = entrants
        points: list[Point] = []
        told = ""
        starts = range(0, max(1, len(others)), _TOGETHER - 1)
        for turn, start in enumerate(starts):
            group = [dense, *others[start : start + _TOGETHER - 1]]
            part = _Part(self.progress, 80 * turn / len(starts), 80 * (turn + 1) / len(starts))
            result = compare(
                [self._runner(backend, c) for c in group], inputs, rounds=self.options.rounds,
                seconds=self.options.seconds, clock=self.options.clock, progress=part,
            )  # fmt: skip
            told = result.results[0].description
            first = 1 if start else 0  # dense is a point once
            pairs = zip(group[first:], result.results[first:], strict=True)
            points += [_point(candidate, run) for candidate, run in pairs]
        return points, told

    def _runner(self, backend: str, candidate: Candidate) -> RunnerSpec:
        name, switches = benchmarked(backend)
        return RunnerSpec(
            candidate.name, path=str(self.files[candidate.name]), backend=name, options=switches,
            threads=self.options.threads,
        )  # fmt: skip

    def judged(self, backend: str, points: Sequence[Point]) -> list[Point]:
        """Return the points with the accuracy of those that are in the search."""
        found = []
        part = _Part(self.progress, 80, 100)
        for number, point in enumerate(points):
            part.update(number, len(points), f"judge {point.candidate.name}")
            found.append(point if point.dropped else self._judge_one(backend, point))
        return found

    def _judge_one(self, backend: str, point: Point) -> Point:
        name, switches = benchmarked(backend)
        path = self.files[point.candidate.name]
        with open_session(path, name, threads=self.options.threads, options=switches) as session:
            outputs = run_samples(session, self.judge.labelled.samples)
        accuracy, draws = self.judge(outputs)
        reason = "" if accuracy is not None else "no output has the shape of a dense one"
        return replace(point, accuracy=accuracy, draws=draws, dropped=reason)


def _point(candidate: Candidate, run: RunnerResult) -> Point:
    low, high = run.ratio_range
    return Point(
        candidate, run.latency.p50_ms, run.latency.p90_ms, 1 / run.ratio, (1 / high, 1 / low),
        run.sha256, steady=run.warm_up.settled,
    )  # fmt: skip
