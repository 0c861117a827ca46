"""Compare runners side by side: each in its own process, in turns A B A B, with ratios.

Thread pools of two libraries in one process disturb each other, and a machine's speed drifts.
Processes keep the pools apart; turns let the drift touch every runner alike; and the ratio is taken
per turn, so that what remains of the drift cancels.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from prunus.runtime import host
from prunus.runtime.arrays import write_arrays
from prunus.runtime.card.artifact import sha256_of, write_whole
from prunus.runtime.errors import HostError, PrunusError, UsageError
from prunus.runtime.json_text import json_text
from prunus.runtime.measure.latency import Clock, Latency, WarmUp, environment, summarise, warm_up
from prunus.runtime.measure.runner import Inputs, RunnerSpec
from prunus.runtime.progress import Progress, Silent

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class RunnerResult:
    """What was measured for one runner.

    Attributes:
        spec: What ran.
        sha256: Hash of the model file, empty for a function.
        description: Back end, device, arithmetic and threads as opened.
        settings: Switches that the back end read, by name; none for a function.
        latency: Percentiles over all turns.
        cold_start_ms: Start of the process to the end of the first run.
        open_ms: Opening alone.
        first_run_ms: First run alone.
        peak_memory_bytes: Largest resident size of its process.
        warm_up: How the warm-up went.
        rounds_ms: Raw samples, one tuple per turn.
        ratio: Median over the turns of (first runner's median / this one's): above 1 is faster.
        ratio_range: Smallest and largest of these.
    """

    spec: RunnerSpec
    sha256: str
    description: str
    settings: Mapping[str, Any]
    latency: Latency
    cold_start_ms: float
    open_ms: float
    first_run_ms: float
    peak_memory_bytes: int
    warm_up: WarmUp
    rounds_ms: tuple[tuple[float, ...], ...]
    ratio: float
    ratio_range: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Results in the order of the runners; the first is the one that ratios refer to."""

    results: tuple[RunnerResult, ...]
    environment: Mapping[str, Any]
    inputs: str
    clock: Clock = "wall"

    def to_json(self) -> str:
        """Return everything, raw samples included."""
        raw = {
            "schema_version": SCHEMA_VERSION,
            "environment": dict(self.environment),
            "inputs": self.inputs,
            "clock": self.clock,
            "results": [dataclasses.asdict(result) for result in self.results],
        }
        return json_text(raw, indent=1)

    def write(self, path: str | Path) -> None:
        """Write `to_json` to a file, whole or not at all."""
        write_whole(path, self.to_json() + "\n")

    def to_text(self) -> str:
        """Return a table for people: medians, percentiles, ratios, cold start, memory."""
        width = max(len(result.spec.name) for result in self.results)
        lines = [
            f"{'runner':{width}}  {'n':>5}  {'p50 ms':>8}  {'p90 ms':>8}  {'p99 ms':>8}  "
            f"{'ratio':>6}  {'range':>11}  {'cold s':>6}  {'MiB':>5}"
        ]
        for r in self.results:
            low, high = r.ratio_range
            lines.append(
                f"{r.spec.name:{width}}  {r.latency.n:5d}  {r.latency.p50_ms:8.2f}  "
                f"{r.latency.p90_ms:8.2f}  {r.latency.p99_ms:8.2f}  {r.ratio:6.2f}  "
                f"{low:5.2f}-{high:5.2f}  {r.cold_start_ms / 1e3:6.2f}  "
                f"{r.peak_memory_bytes / 2**20:5.0f}{'' if r.warm_up.settled else '  (unsteady)'}"
            )
        lines += [f"{r.spec.name:{width}}  {r.description}" for r in self.results]
        told = self.environment
        lines.append(f"{told['cpu']}, {told['threads']} threads, load {told['load_average'][0]}")
        lines.append(f"inputs: {self.inputs}")
        if self.clock == "cpu":
            lines.append("CPU time of each call, all threads together")
        return "\n".join(lines)


def compare(
    runners: Sequence[RunnerSpec],
    inputs: Inputs | None = None,
    *,
    rounds: int = 3,
    seconds: float = 2.0,
    clock: Clock = "wall",
    minimum: int = 3,
    warm_windows: int = 8,
    progress: Progress | None = None,
) -> Comparison:
    """Measure runners in turns.

    Args:
        runners: At least one, with names of their own; ratios refer to the first.
        inputs: Real inputs by name (see `prunus.runtime.measure.runner.open_runner`); None for
            noise.
        rounds: Turns of each runner; A B A B is 2.
        seconds: Length of one turn.
        clock: ``wall``, or ``cpu`` on a machine that others use (see `time_window`).
        minimum: Calls of a turn at least, however long they take.
        warm_windows: Windows of the warm-up at most, see `warm_up`; two at least.
        progress: Told about every turn.

    Raises:
        UsageError: no runner, or two of one name.
        PrunusError: a runner failed; carries its own message.
        HostError: a runner's process died.
    """
    names = [spec.name for spec in runners]
    if not names or len(set(names)) != len(names) or rounds < 1:
        raise UsageError(f"Got the runners {names} and {rounds} rounds; expected different names.")
    progress = progress or Silent()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stored = folder / "inputs.npz"
        write_arrays(stored, inputs or {})
        workers, steps, done = [], len(names) * (rounds + 1), 0
        for spec in runners:
            worker = stack.enter_context(_worker(spec, stored, folder, clock))
            worker.minimum = minimum
            workers.append(worker)
            worker.warm(seconds, warm_windows)
            done += 1
            progress.update(done, steps, f"warm-up {spec.name}")
        for _ in range(rounds):
            for worker in workers:
                worker.measure(seconds)
                done += 1
                progress.update(done, steps, worker.spec.name)
        results = _results(workers)
    told = "given" if inputs else "uniform noise"
    return Comparison(results, environment(runners[0].threads), told, clock)


class _Process:
    """The parent's end of one worker."""

    def __init__(
        self, spec: RunnerSpec, process: subprocess.Popen[str], log: IO[str], clock: Clock
    ) -> None:
        self.spec, self._process, self._log, self._clock = spec, process, log, clock
        self.rounds: list[tuple[float, ...]] = []
        self.opened: dict[str, Any] = {}
        self.warm_up = WarmUp((), False)
        self.minimum = 3

    def warm(self, seconds: float, windows: int) -> None:
        self.warm_up = warm_up(lambda: self._window(min(seconds, 1.0)), windows)

    def measure(self, seconds: float) -> None:
        self.rounds.append(tuple(self._window(seconds)))

    def _window(self, seconds: float) -> list[float]:
        answer = self.order(do="window", seconds=seconds, minimum=self.minimum, clock=self._clock)
        samples: list[float] = answer["samples_ms"]
        return samples

    def order(self, **order: Any) -> dict[str, Any]:
        """Send an order and wait for the answer."""
        assert self._process.stdin is not None  # both are pipes
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            self._log.seek(0)
            last = (self._log.read().strip().splitlines() or ["it wrote nothing"])[-1][:200]
            raise HostError(f"The process of runner '{self.spec.name}' died ({code}): {last}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            error = PrunusError(f"Runner '{self.spec.name}': {answer['error']}", answer["hint"])
            error.exit_code = answer["exit_code"]  # the child's kind of error decides
            raise error
        return answer


@contextlib.contextmanager
def _worker(spec: RunnerSpec, inputs: Path, folder: Path, clock: Clock) -> Iterator[_Process]:
    # Libraries that size their pools from the environment get the same number of threads.
    environ = {**os.environ, "OMP_NUM_THREADS": str(spec.threads or host.usable_cpus())}
    command = [sys.executable, "-m", "prunus.runtime.measure.worker"]
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+", dir=folder, errors="replace") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            env=environ,
        )  # fmt: skip
        try:
            worker = _Process(spec, process, log, clock)
            worker.opened = worker.order(do="open", spec=spec.to_dict(), inputs=str(inputs))
            worker.opened["cold_start_ms"] = 1e3 * (time.perf_counter() - start)
            yield worker
        finally:
            process.kill()
            process.communicate()


def _results(workers: Sequence[_Process]) -> tuple[RunnerResult, ...]:
    medians = [[float(np.median(turn)) for turn in worker.rounds] for worker in workers]
    results = []
    for worker, own in zip(workers, medians, strict=True):
        spec, opened = worker.spec, worker.opened
        ratios = [base / mine for base, mine in zip(medians[0], own, strict=True)]
        merged = [sample for turn in worker.rounds for sample in turn]
        results.append(
            RunnerResult(
                spec=spec,
                sha256=sha256_of(spec.path) if spec.path else "",
                description=opened["description"],
                settings=opened["settings"],
                latency=summarise(merged, spec.boundary),
                cold_start_ms=opened["cold_start_ms"],
                open_ms=opened["open_ms"],
                first_run_ms=opened["first_run_ms"],
                peak_memory_bytes=worker.order(do="close")["peak_memory_bytes"],
                warm_up=worker.warm_up,
                rounds_ms=tuple(worker.rounds),
                ratio=float(np.median(ratios)),
                ratio_range=(min(ratios), max(ratios)),
            )
        )
    return tuple(results)
