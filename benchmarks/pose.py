"""Pose benchmarks: every figure that prunus states about pose, from one command.

    python benchmarks/pose.py            # all, some ten minutes on two cores
    python benchmarks/pose.py --quick    # the same tables with short turns
    python benchmarks/pose.py --only pruning --seconds 4

Each runner has a process of its own; runners take turns A B A B. Random weights serve for latency
(the graph is the same); accuracy is measured elsewhere, with `prunus eval` and `prunus check`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from record import write_record

from prunus.apps.bench.runs import people_runner, run_in_turns, session_runner, torch_runner
from prunus.apps.common.model_files import find_model
from prunus.apps.common.tables import plain_table
from prunus.runtime.card.artifact import read_card, sha256_of
from prunus.runtime.errors import PrunusError
from prunus.runtime.host import bfloat16_flag, installed
from prunus.runtime.measure.compare import Comparison
from prunus.runtime.measure.latency import environment
from prunus.runtime.progress import ConsoleProgress

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / ".cache" / "bench"
RESULTS = Path(__file__).resolve().parent / "results"
LEVELS = ("L0", "L1", "L2", "L3")
PORTRAIT = ROOT / "apps" / "media" / "portrait.jpg"


@dataclass(frozen=True, slots=True)
class Settings:
    """How long and with what."""

    threads: int
    rounds: int
    seconds: float
    variant: str


def model(settings: Settings, level: str, precision: str = "fp32", batch: int = 1) -> Path:
    """Return an exported EViTPose with random weights, exported on first use."""
    suffix = f"-B{batch}" if batch > 1 else ""
    path = MODELS / f"{settings.variant}-{level}-{precision}{suffix}.onnx"
    if not path.is_file():
        from prunus.export.evitpose import export_evitpose

        MODELS.mkdir(parents=True, exist_ok=True)
        with ConsoleProgress(f"export {path.name}") as progress:
            export_evitpose(
                settings.variant, level=level, precision=precision, batch=batch,
                checkpoint="random", output=path, progress=progress,
            )  # fmt: skip
    return path


def backends() -> list[str]:
    """Return the back ends that this machine can run, with their arithmetic."""
    names = ["onnxruntime"]
    if installed("openvino"):
        names.append("openvino-f32")
        if bfloat16_flag():
            names.append("openvino-bf16")
    return names


def measure(title: str, runners: Sequence[Any], settings: Settings) -> Comparison:
    """Run one comparison and print it."""
    with ConsoleProgress(title) as progress:
        result = run_in_turns(
            runners, rounds=settings.rounds, seconds=settings.seconds, progress=progress
        )
    print(f"\n## {title}\n{result.to_text()}\n", flush=True)
    return result


def runners_of_dense(settings: Settings) -> dict[str, Any]:
    """PyTorch, and every back end, on the dense network; ratios refer to PyTorch eager."""
    dense = model(settings, "L0")
    entries = [
        torch_runner(word, dense, settings.threads) for word in ("torch-eager", "torch-compile")
    ]
    entries += [session_runner(dense, name, settings.threads) for name in backends()]
    quantised = model(settings, "L0", "int8")
    for name in ("onnxruntime", "openvino-f32", "openvino-bf16"):
        if name in backends():
            entries.append(session_runner(quantised, name, settings.threads))
    return _stored(measure("dense network, all runners", entries, settings))


def pruning(settings: Settings) -> dict[str, Any]:
    """L0 to L3 on each back end: measured speed-up beside the ratio of MACs."""
    found: dict[str, Any] = {}
    rows = []
    for backend in backends():
        paths = [model(settings, level) for level in LEVELS]
        entries = [session_runner(p, backend, settings.threads) for p in paths]
        result = measure(f"pruning levels on {backend}", entries, settings)
        found[backend] = _stored(result)
        for path, level, entry in zip(paths, LEVELS, result.results, strict=True):
            plan = read_card(path).tokens
            macs = plan.macs_dense / plan.macs if plan else 1.0
            share = (entry.ratio - 1) / (macs - 1) if macs > 1 else 1.0
            rows.append(
                [
                    backend, level, f"{macs:.2f}x", f"{entry.latency.p50_ms:.2f}",
                    f"{entry.latency.p90_ms:.2f}", f"{entry.ratio:.2f}x",
                    f"{100 * entry.ratio / macs:.0f}%", f"{100 * share:.0f}%",
                ]
            )  # fmt: skip
    columns = ("back end", "level", "MACs", "p50 ms", "p90 ms", "measured", "of MACs", "of gain")
    print(plain_table("## pruning: measured against MACs", columns, rows) + "\n", flush=True)
    return found


def quantised(settings: Settings) -> dict[str, Any]:
    """int8 against fp32 in ONNX Runtime."""
    paths = (model(settings, "L0"), model(settings, "L0", "int8"))
    entries = [session_runner(p, "onnxruntime", settings.threads) for p in paths]
    return _stored(measure("int8 against fp32, ONNX Runtime", entries, settings))


def batching(settings: Settings) -> dict[str, Any]:
    """Four people: one run of batch 4 against four runs of batch 1, boxes to joints."""
    found = {}
    for backend in backends():
        one, four = model(settings, "L2"), model(settings, "L2", batch=4)
        entries = [
            people_runner([one], backend.partition("-")[0], settings.threads, 4, "loop of 1"),
            people_runner([four], backend.partition("-")[0], settings.threads, 4, "batch of 4"),
        ]
        name = backend.partition("-")[0]
        if name not in found:
            found[name] = _stored(measure(f"four people on {name}", entries, settings))
    return found


def peers(settings: Settings) -> dict[str, Any]:
    """MoveNet Lightning beside EViTPose, one person, boxes to joints, ONNX Runtime."""
    lightning = find_model("movenet_lightning")
    entries = [people_runner(lightning, "onnxruntime", settings.threads, 1, "movenet-lightning")]
    for variant in dict.fromkeys(("tiny", settings.variant)):
        own = Settings(settings.threads, settings.rounds, settings.seconds, variant)
        entries += [
            people_runner(
                model(own, level), "onnxruntime", settings.threads, 1, f"evitpose-{variant}-{level}"
            )
            for level in ("L0", "L2")
        ]
    return _stored(measure("peers, one person", entries, settings))


def light(settings: Settings) -> dict[str, Any]:
    """What it costs to be there: import, cold start to the first skeleton, peak memory."""
    path = model(Settings(settings.threads, 1, 1.0, "tiny"), "L2")
    imports = [_wall("import prunus.runtime") - _wall("pass") for _ in range(5)]
    run = (
        "import sys; from prunus.apps.cli.main import main; "
        "from prunus.runtime.measure.latency import "
        "peak_memory_bytes; code = main(sys.argv[1:]); "
        "print(peak_memory_bytes(), file=sys.stderr); sys.exit(code)"
    )
    words = ["run", "pose", "--source", str(PORTRAIT), "--sink", "null:", "--quiet", "--json",
             "--backend", "onnxruntime", "--model", str(path)]  # fmt: skip
    starts, peaks = [], []
    for _ in range(5):
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", run, *words], capture_output=True, text=True, check=True
        )
        starts.append(time.perf_counter() - begin)
        peaks.append(int(done.stderr.split()[-1]) / 2**20)
    rows = [
        ["import prunus.runtime, ms", f"{1000 * statistics.median(imports):.0f}", "150"],
        ["process start to first skeleton, s", f"{statistics.median(starts):.2f}", "2"],
        ["peak memory of prunus run, MiB", f"{max(peaks):.0f}", "400"],
    ]
    print(plain_table("## light", ("what", "measured", "limit"), rows) + "\n", flush=True)
    return {"import_s": imports, "cold_start_s": starts, "peak_mib": peaks}


def _wall(code: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - begin


def _stored(result: Comparison) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads(result.to_json())
    return raw


CASES: dict[str, Callable[[Settings], dict[str, Any]]] = {
    "dense": runners_of_dense,
    "pruning": pruning,
    "int8": quantised,
    "batching": batching,
    "peers": peers,
    "light": light,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="short turns")
    parser.add_argument("--only", choices=list(CASES), action="append", help="default: all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=0, help="turns of each runner")
    parser.add_argument("--seconds", type=float, default=0.0, help="length of a turn")
    parser.add_argument("--variant", default="small", help="tiny, small or base")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "pose.json")
    options = parser.parse_args(arguments)
    settings = Settings(
        threads=options.threads,
        rounds=options.rounds or (2 if options.quick else 4),
        seconds=options.seconds or (1.0 if options.quick else 3.0),
        variant=options.variant,
    )
    begin = time.perf_counter()
    try:
        found = {name: CASES[name](settings) for name in options.only or CASES}
        files = {p.name: sha256_of(p) for p in sorted(MODELS.glob("*.onnx"))}
        body = {"environment": environment(settings.threads), "models": files, "cases": found}
        write_record(options.output, body)
    except PrunusError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    print(f"wrote {options.output} after {time.perf_counter() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
