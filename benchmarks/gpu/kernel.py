"""The local-global attention kernel on a GPU: is it right, and how fast is it?

Right: its error against float64, relative to the largest value, below a limit and not above that of
PyTorch's fused attention. Fast: against that attention with the windows as a batch (B1), the
decomposed graph (B0) and FlexAttention, each replayed as a CUDA graph so that launches cost the
same little, and against the time that its bytes alone take at the speed of a copy.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import baselines, cases
from prunus.models.layers.local_global.index import AttentionIndex, grid_windows
from prunus.runtime.plugins.local_global_attention.launch import attend

LIMITS = {"float32": 1e-5, "float16": 1e-2, "bfloat16": 1e-2}
# A tenth more than the other's error is the same error: both round at different places.
NO_WORSE = 1.1
SPEEDUP, SHARE = 1.5, 0.6  # aims, reported and not judged: times depend on the card
REPLAYS = 20

Timer = Callable[[Mapping[str, Callable[[], Any]], int], dict[str, list[float]]]


@dataclass(frozen=True, slots=True)
class Shape:
    """A grid of tokens cut into square windows, with global tokens."""

    name: str
    height: int
    width: int
    channels: int
    heads: int
    window: int
    globals_: int

    @property
    def scale(self) -> float:
        """1 / sqrt(d)."""
        return float((self.channels // self.heads) ** -0.5)

    def bytes_moved(self, size: int) -> int:
        """Bytes that any kernel must move: q, k, v, y, the globals, biases and tables once."""
        tokens, length = self.height * self.width, self.window**2
        numbers = 4 * tokens * self.channels + 2 * self.globals_ * self.channels
        numbers += self.heads * (length * length + self.globals_)
        return numbers * size + 2 * tokens * 8


SHAPES = (
    Shape("windows of 7", 56, 56, 96, 3, 7, 16),
    Shape("pose, stride 4", 64, 48, 64, 2, 8, 17),
    Shape("pose, stride 8", 32, 24, 128, 4, 8, 17),
    Shape("segmentation", 64, 64, 128, 4, 8, 16),
)


@dataclass(slots=True)
class KernelResult:
    """One shape and dtype; times in milliseconds, errors relative to the largest value."""

    shape: str
    dtype: str
    error: float
    fused_error: float
    times_ms: dict[str, list[float]] = field(default_factory=dict)
    floor_ms: float = 0.0
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def median(self, name: str) -> float:
        """Return the median time of one way, NaN where it was not timed."""
        return statistics.median(self.times_ms.get(name) or [float("nan")])


def make_inputs(shape: Shape, dtype: torch.dtype, device: str) -> dict[str, Tensor]:
    """Return the operator's inputs with normal values, the same on every machine."""
    generator = torch.Generator().manual_seed(0)
    index = AttentionIndex(grid_windows((shape.height, shape.width), (shape.window, shape.window)))
    tokens, length = shape.height * shape.width, shape.window**2
    sizes = {
        "q": (1, tokens, shape.channels), "k": (1, tokens, shape.channels),
        "v": (1, tokens, shape.channels), "bias_l": (1, shape.heads, length, length),
        "kg": (1, 1, shape.globals_, shape.channels), "vg": (1, 1, shape.globals_, shape.channels),
        "bias_g": (1, 1, shape.heads, 1, shape.globals_), "gate": (1, 1, 1, 1),
    }  # fmt: skip
    values = {n: torch.randn(s, generator=generator).to(dtype) for n, s in sizes.items()}
    tables = {n: getattr(index, n) for n in ("q_index", "kv_index", "o_index")}
    return {n: t.to(device) for n, t in (values | tables).items()}


def exact(inputs: Mapping[str, Tensor], shape: Shape) -> Tensor:
    """Return the definition in float64."""
    return cases.exact(inputs, heads=shape.heads, scale=shape.scale, combine="joint")


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Return the largest difference over the largest value."""
    return float((got.double() - expected).abs().max() / expected.abs().max())


def judge(result: KernelResult) -> None:
    """Note as problems an error above the limit, or above that of the fused attention."""
    limit = LIMITS[result.dtype]
    if not result.error < limit:
        result.problems.append(f"relative error {result.error:.2e}, limit {limit:.0e}")
    # In float32 both are at the edge of the type, and which is smaller is chance.
    if result.dtype != "float32" and not result.error <= NO_WORSE * result.fused_error:
        result.problems.append(
            f"relative error {result.error:.2e}, fused attention {result.fused_error:.2e}"
        )


def run_shape(
    shape: Shape,
    dtype: torch.dtype,
    copy_bytes_per_ms: float,
    samples: int,
    *,
    device: str = "cuda",
    architecture: int = 80,
    timer: Timer | None = None,
) -> KernelResult:
    """Compare and time one shape in one dtype."""
    inputs = make_inputs(shape, dtype, device)

    def kernel() -> Tensor:
        y: Tensor = attend(
            inputs, heads=shape.heads, scale=shape.scale, combine="joint", architecture=architecture
        )
        return y

    ways: dict[str, Callable[[], Tensor]] = {
        "kernel": kernel,
        "B1": lambda: baselines.windows_as_batch(inputs, shape.heads, shape.scale),
        "B0": lambda: baselines.decomposed(inputs, shape.heads, shape.scale),
    }
    expected = exact(inputs, shape)
    errors = {name: relative_error(way(), expected) for name, way in ways.items()}
    result = KernelResult(
        shape.name, str(dtype).removeprefix("torch."), errors["kernel"], errors["B1"]
    )
    judge(result)
    try:
        ways["flex"] = baselines.flex(inputs, shape.heads, shape.scale, device.startswith("cuda"))
        if (error := relative_error(ways["flex"](), expected)) > 10 * LIMITS[result.dtype]:
            result.notes.append(f"FlexAttention is off by {error:.1e}")
    except Exception as error:  # a compiler of its own, on shapes that it may not take
        ways.pop("flex", None)
        result.notes.append(f"FlexAttention does not run: {' '.join(str(error).split())[:120]}")
    result.times_ms = (timer or time_graphs)(ways, samples)
    result.floor_ms = shape.bytes_moved(inputs["q"].element_size()) / copy_bytes_per_ms
    return result


def time_graphs(ways: Mapping[str, Callable[[], Any]], samples: int) -> dict[str, list[float]]:
    """Replay each way as a CUDA graph, in turn; milliseconds per call, one figure per sample."""
    graphs = {}
    for name, way in ways.items():
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                way()
        torch.cuda.current_stream().wait_stream(side)
        graphs[name] = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graphs[name]):
            way()
    times: dict[str, list[float]] = {name: [] for name in graphs}
    for sample in range(samples + 1):
        for name, graph in graphs.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(REPLAYS):
                graph.replay()
            end.record()
            end.synchronize()
            if sample:  # the first one warms up
                times[name].append(start.elapsed_time(end) / REPLAYS)
    return times


def copy_speed(samples: int, size: int = 1 << 28, timer: Timer | None = None) -> float:
    """Return bytes per millisecond of a large copy on the GPU: read and written both count."""
    source = torch.empty(size, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    times = (timer or time_graphs)({"copy": lambda: target.copy_(source)}, samples)
    return 2 * size / statistics.median(times["copy"])


def run_kernel(samples: int, shapes: Sequence[Shape] = SHAPES) -> list[KernelResult]:
    """Run every shape and every case in every dtype on the current GPU."""
    major, minor = torch.cuda.get_device_capability()
    architecture, speed = 10 * major + minor, copy_speed(samples)
    results = []
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        if dtype == torch.bfloat16 and major < 8:
            continue  # Turing has none
        for shape in shapes:
            results.append(
                _survive(
                    shape.name, dtype, run_shape, shape, dtype, speed, samples,
                    architecture=architecture,
                )
            )  # fmt: skip
        for case in cases.CASES:
            results.append(
                _survive(case.name, dtype, run_case, case, dtype, architecture=architecture)
            )
    return results


def _survive(
    name: str, dtype: torch.dtype, run: Callable[..., KernelResult], *arguments: Any, **named: Any
) -> KernelResult:
    """Return what `run` returns; what it raises becomes a problem, so that the others still run."""
    try:
        return run(*arguments, **named)
    except Exception as error:
        words = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        nan = float("nan")
        return KernelResult(name, str(dtype).removeprefix("torch."), nan, nan, problems=[words])


def run_case(
    case: cases.Case, dtype: torch.dtype, *, device: str = "cuda", architecture: int = 80
) -> KernelResult:
    """Compare one case in one dtype with the definition in float64; rows without a key are zero."""
    inputs = {n: t.to(device) for n, t in cases.make_case(case, dtype).items()}
    named = {"heads": case.heads, "scale": case.scale, "combine": case.combine}
    y: Tensor = attend(inputs, **named, architecture=architecture)
    error = relative_error(y, cases.exact(inputs, **named))
    result = KernelResult(case.name, str(dtype).removeprefix("torch."), error, float("nan"))
    if not error < LIMITS[result.dtype]:
        result.problems.append(f"relative error {error:.2e}, limit {LIMITS[result.dtype]:.0e}")
    if y[:, inputs["q_index"][:, 0]].any():
        result.problems.append("a row whose keys are all masked is not zero")
    return result


def kernel_table(results: Sequence[KernelResult]) -> str:
    """Return the results as a Markdown table; times are medians."""
    lines = [
        "| shape | dtype | error | fused | kernel ms | B1 / kernel | B0 / kernel | flex / kernel "
        "| share of copy speed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        if not r.times_ms:  # compared, not timed
            lines.append(f"| {r.shape} | {r.dtype} | {r.error:.1e} | | | | | | |")
            lines += [f"| {r.shape} | {r.dtype} | FAILED: {p} | | | | | | |" for p in r.problems]
            continue
        own = r.median("kernel")
        ratios = " | ".join(f"{r.median(name) / own:.2f}" for name in ("B1", "B0", "flex"))
        aims = "" if r.median("B1") / own >= SPEEDUP else f" (aim {SPEEDUP})"
        share = r.floor_ms / own
        lines.append(
            f"| {r.shape} | {r.dtype} | {r.error:.1e} | {r.fused_error:.1e} | {own:.4f} | "
            f"{ratios}{aims} | {100 * share:.0f} %{'' if share >= SHARE else ' (aim 60 %)'} |"
        )
        lines += [f"| {r.shape} | {r.dtype} | FAILED: {p} | | | | | | |" for p in r.problems]
        lines += [f"| {r.shape} | {r.dtype} | {n} | | | | | | |" for n in r.notes]
    return "\n".join(lines)
