"""What every benchmark shares: places, command line, turns, tables, and the record it writes."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.apps.bench.runs import run_in_turns
from prunus.apps.common.tables import plain_table
from prunus.runtime.card.artifact import write_whole
from prunus.runtime.errors import PrunusError
from prunus.runtime.host import bfloat16_flag, installed
from prunus.runtime.measure.compare import Comparison, compare
from prunus.runtime.measure.latency import Clock
from prunus.runtime.measure.runner import RunnerSpec
from prunus.runtime.progress import ConsoleProgress

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / ".cache" / "bench"  # graphs exported on first use
RESULTS = ROOT / "benchmarks" / "results"
_BREAK = r"\n\s*"
_PLAIN_LIST = re.compile(rf"\[{_BREAK}([^\[\]{{}}]*?){_BREAK}\]")
PORTRAIT = ROOT / "apps" / "media" / "portrait.jpg"  # one real picture: speed does not depend on it


@dataclass(frozen=True, slots=True)
class Settings:
    """How long and with what runners are timed.

    Attributes:
        threads: Of each runner.
        rounds: Turns of each runner.
        seconds: Length of a turn.
        clock: Wall clock or CPU time.
        quick: Short turns were asked for.
        variant: Size of the network, where a benchmark leaves the choice.
    """

    threads: int
    rounds: int
    seconds: float
    clock: Clock = "wall"
    quick: bool = False
    variant: str = ""


def new_parser(
    doc: str | None,
    record: str,
    cases: Iterable[str] = (),
    *,
    threads: int = 2,
    turn: str = "--seconds",
    cpu: str = "",
    quick: str = "short turns",
) -> argparse.ArgumentParser:
    """Return a command line with the flags of every benchmark that takes turns.

    Args:
        doc: Text of the help.
        record: File of results, below `RESULTS`.
        cases: Words of ``--only``.
        threads: Default of ``--threads``, 0 where it follows from ``--cpu``.
        turn: Flag of the length of a turn in seconds.
        cpu: Help of ``--cpu``; without it there is no such flag.
        quick: Help of ``--quick``.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help=quick)
    if names := list(cases):
        add("--only", choices=names, action="append", help="default: all")
    told = None if threads else "default: 2, 1 with --cpu"
    add("--threads", type=int, default=threads, help=told)
    if cpu:
        add("--cpu", action="store_true", help=cpu)
    add("--rounds", type=int, default=0, help="turns of each runner")
    add(turn, type=float, default=0.0, dest="turn", help="length of a turn")
    add("-o", "--output", type=Path, default=RESULTS / record)
    return parser


def settings(
    options: argparse.Namespace, rounds: tuple[int, int], seconds: tuple[float, float]
) -> Settings:
    """Return what the command line asks for; pairs are defaults with ``--quick`` and without."""
    cpu = getattr(options, "cpu", False)
    return Settings(
        threads=options.threads or (1 if cpu else 2),
        rounds=options.rounds or rounds[not options.quick],
        seconds=options.turn or seconds[not options.quick],
        clock="cpu" if cpu else "wall",
        quick=options.quick,
        variant=getattr(options, "variant", None) or "",
    )


def report_errors(work: Callable[[], object]) -> int:
    """Do the work of a script; return its exit code, a refusal in two lines."""
    try:
        work()
    except PrunusError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


def finish(work: Callable[[], object], output: Path) -> int:
    """Do the work of a benchmark, say where its record is; return the exit code."""
    begin = time.perf_counter()
    code = report_errors(work)
    if code == 0:
        print(f"wrote {output} after {time.perf_counter() - begin:.0f} s")
    return code


def backends() -> list[str]:
    """Return the back ends that this machine can run, with their arithmetic."""
    names = ["onnxruntime"]
    if installed("openvino"):
        names.append("openvino-f32")
        if bfloat16_flag():
            names.append("openvino-bf16")
    return names


def exported(
    path: Path, write: Callable[[ConsoleProgress], object], *, stale: bool = False
) -> Path:
    """Return a file that `write` makes on first use, or when it is stale."""
    if stale or not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with ConsoleProgress(f"export {path.name}") as progress:
            write(progress)
    return path


def take_turns(
    title: str, runners: Sequence[RunnerSpec], how: Settings, *, shipped: bool = True
) -> Comparison:
    """Time runners A B A B.

    Args:
        title: For the progress display.
        runners: The first is what ratios refer to.
        how: How long and with what.
        shipped: The graphs come from an export of prunus, which knows real inputs for them; False
            gives them noise.
    """
    turns = run_in_turns if shipped else compare
    with ConsoleProgress(title) as progress:
        return turns(
            runners, rounds=how.rounds, seconds=how.seconds, clock=how.clock, progress=progress
        )


def measure(title: str, runners: Sequence[RunnerSpec], how: Settings) -> Comparison:
    """Time runners A B A B and print the comparison."""
    result = take_turns(title, runners, how)
    print(f"\n## {title}\n{result.to_text()}\n", flush=True)
    return result


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    print(plain_table(title, columns, rows) + "\n", flush=True)


def stored(result: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON values: to four digits, with short names of files."""
    raw: dict[str, Any] = json.loads(result.to_json(), parse_float=lambda t: round(float(t), 4))
    for entry in raw["results"]:  # paths of this machine say nothing elsewhere
        entry["spec"]["path"] = Path(entry["spec"]["path"]).name
        entry["spec"]["arguments"] = [Path(word).name for word in entry["spec"]["arguments"]]
    return raw


def write_record(path: Path, body: dict[str, Any]) -> None:
    """Write a record as sorted JSON, whole or not at all; paths in it are relative to here.

    A list of plain values, samples mostly, is one line.
    """
    text = json.dumps(body, sort_keys=True, indent=1).replace(f"{Path.cwd()}/", "")
    text = _PLAIN_LIST.sub(lambda found: f"[{re.sub(_BREAK, ' ', found[1])}]", text)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text + "\n")
