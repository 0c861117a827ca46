"""Pose benchmarks: every figure that prunus states about pose, from one command.

    python -m benchmarks.pose.speed            # all, some ten minutes on two cores
    python -m benchmarks.pose.speed --quick    # the same tables with short turns
    python -m benchmarks.pose.speed --only pruning --seconds 4

Each runner has a process of its own; runners take turns A B A B. Random weights serve for latency
(the graph is the same); accuracy is measured elsewhere, with `prunus eval` and `prunus check`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prunus.apps.bench.runs import people_runner, session_runner, torch_runner
from prunus.apps.common.model_files import find_model
from prunus.runtime.card.artifact import read_card, sha256_of
from prunus.runtime.measure.latency import environment
from prunus.runtime.progress import ConsoleProgress

from ..record import (
    MODELS,
    PORTRAIT,
    Settings,
    backends,
    exported,
    finish,
    measure,
    new_parser,
    settings,
    show,
    stored,
    write_record,
)

LEVELS = ("L0", "L1", "L2", "L3")


def model(how: Settings, level: str, precision: str = "fp32", batch: int = 1) -> Path:
    """Return an exported EViTPose with random weights, exported on first use."""
    suffix = f"-B{batch}" if batch > 1 else ""
    path = MODELS / f"{how.variant}-{level}-{precision}{suffix}.onnx"

    def write(progress: ConsoleProgress) -> None:
        from prunus.export.evitpose import export_evitpose

        export_evitpose(
            how.variant, level=level, precision=precision, batch=batch,
            checkpoint="random", output=path, progress=progress,
        )  # fmt: skip

    return exported(path, write)


def runners_of_dense(how: Settings) -> dict[str, Any]:
    """PyTorch, and every back end, on the dense network; ratios refer to PyTorch eager."""
    dense = model(how, "L0")
    entries = [
        torch_runner(word, dense, how.threads) for word in ("torch-eager", "torch-compile")
    ]
    entries += [session_runner(dense, name, how.threads) for name in backends()]
    quantised = model(how, "L0", "int8")
    for name in ("onnxruntime", "openvino-f32", "openvino-bf16"):
        if name in backends():
            entries.append(session_runner(quantised, name, how.threads))
    return stored(measure("dense network, all runners", entries, how))


def pruning(how: Settings) -> dict[str, Any]:
    """L0 to L3 on each back end: measured speed-up beside the ratio of MACs."""
    found: dict[str, Any] = {}
    rows = []
    for backend in backends():
        paths = [model(how, level) for level in LEVELS]
        entries = [session_runner(p, backend, how.threads) for p in paths]
        result = measure(f"pruning levels on {backend}", entries, how)
        found[backend] = stored(result)
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
    show("## pruning: measured against MACs", columns, rows)
    return found


def quantised(how: Settings) -> dict[str, Any]:
    """int8 against fp32 in ONNX Runtime."""
    paths = (model(how, "L0"), model(how, "L0", "int8"))
    entries = [session_runner(p, "onnxruntime", how.threads) for p in paths]
    return stored(measure("int8 against fp32, ONNX Runtime", entries, how))


def batching(how: Settings) -> dict[str, Any]:
    """Four people: one run of batch 4 against four runs of batch 1, boxes to joints."""
    found = {}
    for backend in backends():
        one, four = model(how, "L2"), model(how, "L2", batch=4)
        entries = [
            people_runner([one], backend.partition("-")[0], how.threads, 4, "loop of 1"),
            people_runner([four], backend.partition("-")[0], how.threads, 4, "batch of 4"),
        ]
        name = backend.partition("-")[0]
        if name not in found:
            found[name] = stored(measure(f"four people on {name}", entries, how))
    return found


def peers(how: Settings) -> dict[str, Any]:
    """MoveNet Lightning beside EViTPose, one person, boxes to joints, ONNX Runtime."""
    lightning = find_model("movenet_lightning")
    entries = [people_runner(lightning, "onnxruntime", how.threads, 1, "movenet-lightning")]
    for variant in dict.fromkeys(("tiny", how.variant)):
        own = replace(how, variant=variant)
        entries += [
            people_runner(
                model(own, level), "onnxruntime", how.threads, 1, f"evitpose-{variant}-{level}"
            )
            for level in ("L0", "L2")
        ]
    return stored(measure("peers, one person", entries, how))


def light(how: Settings) -> dict[str, Any]:
    """What it costs to be there: import, cold start to the first skeleton, peak memory."""
    path = model(replace(how, variant="tiny"), "L2")
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
    show("## light", ("what", "measured", "limit"), rows)
    return {"import_s": imports, "cold_start_s": starts, "peak_mib": peaks}


def _wall(code: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - begin


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
    parser = new_parser(__doc__, "pose.json", CASES)
    parser.add_argument("--variant", default="small", help="tiny, small or base")
    options = parser.parse_args(arguments)
    how = settings(options, rounds=(2, 4), seconds=(1.0, 3.0))

    def work() -> None:
        found = {name: CASES[name](how) for name in options.only or CASES}
        files = {p.name: sha256_of(p) for p in sorted(MODELS.glob("*.onnx"))}
        body = {"environment": environment(how.threads), "models": files, "cases": found}
        write_record(options.output, body)

    return finish(work, options.output)


if __name__ == "__main__":
    sys.exit(main())
