"""Latency with names for what was measured, a warm-up that ends by itself, and the environment.

A number means nothing without its boundary: ``engine`` is one call of a session, ``pipeline`` is
decode, preprocess, engine and postprocess, ``glass_to_glass`` is capture time stamp to drawn.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from prunus.runtime import host
from prunus.runtime.errors import UsageError
from prunus.runtime.session.registry import distributions

Clock = Literal["wall", "cpu"]
Boundary = Literal["engine", "pipeline", "glass_to_glass", "step"]

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_REPORTED = ("prunus", "numpy", *distributions(), "torch", "opencv-python-headless")
_REPORTED_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
AGREEMENT = 0.02  # two windows whose medians differ by less are warm


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of raw samples.

    Attributes:
        boundary: What lies between start and end of a sample.
        n: Number of samples.
        p50_ms: Median.
        p90_ms: 90th percentile.
        p99_ms: 99th percentile (the largest sample when there are fewer than 100).
        minimum_ms: Smallest sample.
    """

    boundary: Boundary
    n: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    minimum_ms: float


def summarise(samples_ms: Sequence[float], boundary: Boundary) -> Latency:
    """Summarise samples in milliseconds; raises UsageError when there are none."""
    if len(samples_ms) == 0:
        raise UsageError("Got no samples; expected at least one.", "Measure for longer.")
    values = np.asarray(samples_ms, np.float64)
    p50, p90 = np.percentile(values, (50, 90))
    p99 = np.percentile(values, 99) if len(values) >= 100 else values.max()
    return Latency(boundary, len(values), float(p50), float(p90), float(p99), float(values.min()))


def time_window(
    call: Callable[[], object], seconds: float, minimum: int = 3, clock: Clock = "wall"
) -> list[float]:
    """Call for `seconds`, and at least `minimum` times; returns milliseconds of each call.

    Args:
        call: What is timed.
        seconds: Length of the window on the wall clock.
        minimum: Calls at least.
        clock: ``wall``, or ``cpu`` for what all threads of this process computed: other processes
            disturb it little, so it serves on a busy machine, with one thread.
    """
    now = time.process_time_ns if clock == "cpu" else time.perf_counter_ns
    samples: list[float] = []
    end = time.perf_counter_ns() + int(seconds * 1e9)
    while len(samples) < minimum or time.perf_counter_ns() < end:
        start = now()
        call()
        samples.append((now() - start) / 1e6)
    return samples


@dataclass(frozen=True, slots=True)
class WarmUp:
    """How a warm-up went: its windows' medians, and whether the last two agreed."""

    medians_ms: tuple[float, ...]
    settled: bool


def warm_up(window: Callable[[], Sequence[float]], limit: int = 8) -> WarmUp:
    """Run windows until the medians of two in a row agree within 2 %, or `limit` windows passed."""
    medians: list[float] = []
    while len(medians) < max(2, limit):
        medians.append(float(np.median(window())))
        if len(medians) > 1 and abs(medians[-1] - medians[-2]) <= AGREEMENT * medians[-2]:
            return WarmUp(tuple(medians), True)
    return WarmUp(tuple(medians), False)


def environment(threads: int | None = None) -> dict[str, Any]:
    """Describe the machine and the software that a figure was measured with.

    Args:
        threads: Threads that the runners were given, None for all usable CPUs.

    Returns:
        A JSON-ready mapping with sorted keys; the load average tells about other work.
    """
    versions = {name: version for name in _REPORTED if (version := host.version_of(name))}
    load = os.getloadavg() if hasattr(os, "getloadavg") else (float("nan"),) * 3
    variables = {k: os.environ[k] for k in _REPORTED_VARIABLES if k in os.environ}
    return {
        "cpu": host.cpu_model(),
        "cpu_flags": list(host.cpu_flags()),
        "governor": _GOVERNOR.read_text().strip() if _GOVERNOR.is_file() else "unknown",
        "load_average": [round(value, 2) for value in load],
        "logical_cpus": os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "threads": threads or host.usable_cpus(),
        "usable_cpus": host.usable_cpus(),
        "variables": variables,
        "versions": {"python": platform.python_version(), **versions},
    }


def forget_peak_memory() -> None:
    """Let `peak_memory_bytes` begin again, where the system allows it (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes() -> int:
    """Return the largest resident size this process has had, 0 where the system does not tell.

    Read from the kernel's per-address-space mark: `getrusage` would report the parent's size for a
    child that was forked from a large process.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    marks = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(marks[0]) * 1024 if marks else 0
