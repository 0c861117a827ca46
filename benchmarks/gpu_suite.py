"""Pose engines on a real GPU: do they open, are they right, how fast are they?  Run by `make gpu`.

Each case is exported, built, opened with and without CUDA graphs, compared with ONNX Runtime on the
CPU in pixels against the task's budget, and timed (A B A B in one process: all of them are waiting
for the same GPU). Writes a JSON file with the raw samples and prints a table.

Without a GPU or without a package it says what is missing and exits with 0, since nothing is wrong.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from prunus import runtime
from prunus.runtime.backends import cuda
from prunus.runtime.card import ImagePreprocess
from prunus.runtime.errors import PrunusError
from prunus.runtime.measure import environment
from prunus.runtime.session import BackendOptions, Session

FLAVOURS = ("tensorrt", "tensorrt_rtx")
Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Timing:
    """One session's times of a single run, in milliseconds, from numpy in to numpy out."""

    name: str
    description: str
    first_ms: float
    samples_ms: tuple[float, ...]

    def percentile(self, q: float) -> float:
        """Return the q-th percentile, 0..100."""
        return float(np.percentile(self.samples_ms, q))


@dataclass(slots=True)
class Result:
    """What one artifact did with one flavour; `problems` is empty when all is well."""

    model: str
    flavour: str
    half_layer_share: float = 0.0
    inspected_share: float = 0.0
    build_seconds: float = 0.0
    effect: dict[str, float] = field(default_factory=dict)
    timings: list[Timing] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def missing() -> list[str]:
    """Return what this machine lacks for the suite, one short phrase each."""
    lacks = []
    if why := cuda.why_unusable():
        lacks.append(f"a GPU ({why})")
    if not any(importlib.util.find_spec(name) for name in FLAVOURS):
        lacks.append("TensorRT (pip install 'prunus[trt]' or 'prunus[trt-rtx]')")
    needs = {"onnxruntime": "ort", "torch": "models", "onnx": "export", "cv2": "apps"}
    lacks += [
        f"{name} (pip install 'prunus[{extra}]')"
        for name, extra in needs.items()
        if importlib.util.find_spec(name) is None
    ]
    return lacks


def run_stacked(session: Session, crops: np.ndarray) -> dict[str, np.ndarray]:
    """Run all crops, uint8 (N, H, W, 3) with N a multiple of the batch; stack the outputs."""
    spec = session.card.inputs[0]
    parts: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(crops) - spec.shape[0] + 1, spec.shape[0]):
        outputs = session.run({spec.name: crops[start : start + spec.shape[0]]})
        for name, array in outputs.items():
            parts.setdefault(name, []).append(array.copy())
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def time_sessions(
    sessions: Mapping[str, Session],
    batch: np.ndarray,
    samples: int,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> list[Timing]:
    """Time sessions in turn, in windows of ten runs, once each has settled.

    Settled: the medians of two windows in a row agree within 2 %, or 50 windows have passed.
    """

    def window(session: Session) -> list[float]:
        inputs, times = {session.card.inputs[0].name: batch}, []
        for _ in range(10):
            start = clock()
            session.run(inputs)
            times.append((clock() - start) / 1e6)
        return times

    first = {}
    for name, session in sessions.items():
        times = window(session)
        first[name], last = times[0], float(np.median(times))
        for _ in range(50):
            now = float(np.median(window(session)))
            if abs(now - last) <= 0.02 * last:
                break
            last = now
    taken: dict[str, list[float]] = {name: [] for name in sessions}
    while len(next(iter(taken.values()))) < samples:
        for name, session in sessions.items():
            taken[name] += window(session)
    return [
        Timing(name, session.description, first[name], tuple(taken[name]))
        for name, session in sessions.items()
    ]


def compare(result: Result, session: Session, reference: Outputs, crops: np.ndarray) -> Outputs:
    """Judge a session against the reference with the task's budget; returns its outputs."""
    from prunus.export.verify.metrics import metric_for

    card, outputs = session.card, run_stacked(session, crops)
    metric = metric_for(card)
    result.effect = dict(metric.measure(reference, outputs, card).values)
    for limit in metric.limits(card, card.precision.precision):
        got = result.effect.get(limit.quantity, float("nan"))
        if not limit.holds(got):
            result.problems.append(f"{limit.quantity} is {got:.4g}, budget {limit.describe()}")
    return outputs


def run_case(onnx: Path, flavour: str, samples: int, folder: Path) -> Result:
    """Build, open, compare and time one artifact."""
    from prunus.export.calibration import load_calibration
    from prunus.export.engine import build_engine
    from prunus.export.engine_report import inspected_share

    result = Result(onnx.stem, flavour)
    engine = folder / f"{onnx.stem}.{flavour}.engine"
    sidecar = build_engine(onnx, engine, flavour)
    result.half_layer_share, result.build_seconds = sidecar.half_layer_share, sidecar.build_seconds
    image = sidecar.card.preprocess
    if not isinstance(image, ImagePreprocess):
        result.problems.append("not an image model")
        return result
    crops = np.asarray(load_calibration(None, image, 32)["image"])
    batch = sidecar.card.inputs[0].shape[0]
    crops = np.resize(crops, (max(len(crops) // batch, 1) * batch, *crops.shape[1:]))
    with ExitStack() as stack:
        reference = run_stacked(stack.enter_context(runtime.open(onnx, "onnxruntime")), crops)
        sessions: dict[str, Session] = {
            "engine, CUDA graph": stack.enter_context(runtime.open(engine, device="cuda:0")),
            "engine": stack.enter_context(
                runtime.open(engine, device="cuda:0", options=BackendOptions(cuda_graph=False))
            ),
        }
        with_graph = compare(result, sessions["engine, CUDA graph"], reference, crops)
        without = run_stacked(sessions["engine"], crops)
        if any(not np.array_equal(with_graph[n], without[n]) for n in without):
            result.problems.append("CUDA graph on and off differ")
        result.inspected_share = inspected_share(sessions["engine"].layer_report())  # type: ignore[attr-defined]
        if (cuda_provider := _cuda_provider(onnx)) is not None:
            sessions["ONNX Runtime CUDA"] = stack.enter_context(cuda_provider)
        result.timings = time_sessions(sessions, crops[:batch], samples)
    return result


def _cuda_provider(onnx: Path) -> Session | None:
    """Return ONNX Runtime on the GPU where its GPU build is installed."""
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return None
    return runtime.open(onnx, "onnxruntime", device="cuda")


def export_cases(levels: Sequence[str], precisions: Sequence[str], folder: Path) -> list[Path]:
    """Export EViTPose-Tiny with the shipped weights, once per level and precision."""
    from prunus.export.evitpose import export_evitpose

    return [
        export_evitpose(
            "tiny",
            level=level,
            precision=precision,  # type: ignore[arg-type]
            output=folder / f"evitpose-tiny-{level}-{precision}.onnx",
        )
        for level in levels
        for precision in precisions
    ]


def table(results: Sequence[Result]) -> str:
    """Return the results as a Markdown table; times are medians and 90th percentiles."""
    lines = [
        "| model | flavour | mean px | half: network, inspected | session | p50 ms | p90 ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in results:
        pixels = f"{r.effect['mean_px']:.4f}" if "mean_px" in r.effect else ""
        shares = f"{100 * r.half_layer_share:.0f} %, {100 * r.inspected_share:.0f} %"
        for t in r.timings:
            times = f"{t.percentile(50):.3f} | {t.percentile(90):.3f}"
            lines.append(f"| {r.model} | {r.flavour} | {pixels} | {shares} | {t.name} | {times} |")
        lines += [f"| {r.model} | {r.flavour} | FAILED: {p} | | | | |" for p in r.problems]
    return "\n".join(lines)


def surroundings() -> dict[str, Any]:
    """Return the machine, its GPU and driver, and the versions of TensorRT."""
    versions = {
        name: str(importlib.import_module(name).__version__)
        for name in FLAVOURS
        if importlib.util.find_spec(name)
    }
    return {
        **environment(),
        "gpu": dataclasses.asdict(cuda.device_properties()),
        "tensorrt": versions,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite; 0: fine or nothing to run on, 1: a case failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path, help="artifacts; default: EViTPose-Tiny")
    parser.add_argument("--levels", nargs="+", default=["L0", "L1", "L2", "L3"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "fp16", "int8"])
    parser.add_argument("--samples", type=int, default=300, help="runs per session")
    parser.add_argument("-o", "--output", type=Path, default=Path("gpu_suite.json"))
    options = parser.parse_args(arguments)
    if lacks := missing():
        sys.stdout.write(f"GPU suite skipped; this machine lacks: {'; '.join(lacks)}.\n")
        return 0
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = options.models or export_cases(options.levels, options.precisions, folder)
        for model in models:
            for flavour in (f for f in FLAVOURS if importlib.util.find_spec(f)):
                try:
                    result = run_case(model, flavour, options.samples, folder)
                except PrunusError as error:
                    result = Result(model.stem, flavour, problems=[str(error)])
                results.append(result)
                sys.stderr.write(f"{result.model} {flavour}: {result.problems or 'ok'}\n")
    report = {"environment": surroundings(), "results": [dataclasses.asdict(r) for r in results]}
    options.output.write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
    sys.stdout.write(table(results) + f"\n\nraw samples: {options.output}\n")
    return int(any(r.problems for r in results))


if __name__ == "__main__":
    sys.exit(main())
