"""CPU time of graphs in ONNX Runtime, call by call in turn: what a busy machine disturbs least.

Wall-clock figures need an idle machine. CPU time of one thread counts only the work that a call
makes, apart from caches that other processes empty; so its ratios hold on a shared machine as well.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.export.engine.choice import example_inputs
from prunus.runtime.session.base import open as open_session


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Milliseconds of one thread per call of one graph, and their ratios to the first graph's."""

    samples_ms: tuple[float, ...]
    ratios: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Median over pairs of calls that followed one another; below 1 is faster."""
        return statistics.median(self.ratios)

    def to_dict(self) -> dict[str, Any]:
        """Return median, smallest, ratio to the first graph, and the samples."""
        return {
            "median_ms": round(statistics.median(self.samples_ms), 4),
            "min_ms": round(min(self.samples_ms), 4),
            "ratio": round(self.ratio, 4),
            "samples_ms": [round(ms, 4) for ms in self.samples_ms],
        }


def cpu_times(paths: Sequence[Path], calls: int) -> list[CpuTime]:
    """Call every graph in turn, A B A B, in this process and with one thread."""
    sessions = [open_session(path, "onnxruntime", threads=1) for path in paths]
    feeds = [example_inputs(session.card) for session in sessions]
    taken: list[list[float]] = [[] for _ in sessions]
    for call in range(calls + 3):
        for times, session, feed in zip(taken, sessions, feeds, strict=True):
            start = time.process_time_ns()
            session.run(feed)
            if call >= 3:  # the first ones allocate
                times.append((time.process_time_ns() - start) / 1e6)
    for session in sessions:
        session.close()
    return [
        CpuTime(tuple(times), tuple(b / a for a, b in zip(taken[0], times, strict=True)))
        for times in taken
    ]
