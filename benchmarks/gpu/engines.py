"""Engines of the GPU suite: do they open, are they right, how fast are they?

Each case is built, opened with and without CUDA graphs, compared with ONNX Runtime on the CPU in
the task's units against its budget, and timed (A B A B in one process: all of them are waiting for
the same GPU). A model with attention nodes is built twice, with the plugin library and without.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from prunus import runtime
from prunus.runtime.plugins.library import PluginLibrary
from prunus.runtime.session.base import BackendOptions, Session
from prunus.runtime.tasks.pose.card import ImagePreprocess

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
    """What one artifact did with one flavour; `problems` is empty when all is well.

    `plugin` is ``on``, ``off``, or empty for a graph without attention nodes.
    """

    model: str
    flavour: str
    plugin: str = ""
    half_layer_share: float = 0.0
    inspected_share: float = 0.0
    build_seconds: float = 0.0
    effect: dict[str, float] = field(default_factory=dict)
    timings: list[Timing] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


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
    from prunus.runtime.tasks.metrics import metric_for

    card, outputs = session.card, run_stacked(session, crops)
    metric = metric_for(card)
    result.effect = dict(metric.measure(reference, outputs, card).values)
    for limit in metric.limits(card, card.precision.precision):
        got = result.effect.get(limit.quantity, float("nan"))
        if not limit.holds(got):
            result.problems.append(f"{limit.quantity} is {got:.4g}, budget {limit.describe()}")
    return outputs


def plugin_choices(onnx: Path, library: PluginLibrary | None) -> list[str]:
    """Return how to build a model: ``on`` and ``off``, or once where it makes no difference."""
    from prunus.export.engine.attention import check_attention

    if not check_attention(onnx).count:
        return [""]
    return ["off"] if library is None else ["on", "off"]


def run_case(
    onnx: Path,
    flavour: str,
    samples: int,
    folder: Path,
    *,
    plugin: str = "",
    library: PluginLibrary | None = None,
) -> Result:
    """Build, open, compare and time one artifact."""
    from prunus.export.engine.build import build_engine
    from prunus.export.engine.report import inspected_share
    from prunus.export.precision.calibration import load_calibration

    result = Result(onnx.stem, flavour, plugin)
    engine = folder / f"{onnx.stem}.{flavour}{plugin}.engine"
    chosen = library.path if library is not None and plugin == "on" else None
    sidecar = build_engine(onnx, engine, flavour, plugin=plugin or "off", plugin_library=chosen)
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
        judge_share(result)
        if (cuda_provider := _cuda_provider(onnx)) is not None:
            sessions["ONNX Runtime CUDA"] = stack.enter_context(cuda_provider)
        result.timings = time_sessions(sessions, crops[:batch], samples)
    return result


def judge_share(result: Result) -> None:
    """Note it as a problem when an engine is not as half as its network was.

    The inspector counts fused layers of every kind, the network only those that compute, so the two
    figures agree roughly: half of it is the least.
    """
    if result.inspected_share < result.half_layer_share / 2:
        result.problems.append(
            f"{100 * result.inspected_share:.0f} % of the engine's layers are in half precision or "
            f"int8, {100 * result.half_layer_share:.0f} % of its network's"
        )


def _cuda_provider(onnx: Path) -> Session | None:
    """Return ONNX Runtime on the GPU where its GPU build is installed."""
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return None
    return runtime.open(onnx, "onnxruntime", device="cuda")


def export_cases(levels: Sequence[str], precisions: Sequence[str], folder: Path) -> list[Path]:
    """Export EViTPose-Tiny per level and precision, and UniTransPose-Tiny per float precision."""
    from prunus.export.evitpose import export_evitpose
    from prunus.export.unitranspose import export_unitranspose

    attention = [
        export_unitranspose(
            "tiny",
            precision=precision,  # type: ignore[arg-type]
            output=folder / f"unitranspose-tiny-{precision}.onnx",
        )
        for precision in precisions
        if precision != "int8"
    ]
    return attention + [
        export_evitpose(
            "tiny",
            level=level,
            precision=precision,  # type: ignore[arg-type]
            output=folder / f"evitpose-tiny-{level}-{precision}.onnx",
        )
        for level in levels
        for precision in precisions
    ]
