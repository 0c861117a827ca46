"""CPU time by stage of a pipeline whose stages run in threads of their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


class StageClocks:
    """Count the CPU time of stages, from its making on.

    Each stage belongs to one thread at a time, whose CPU time is counted while the stage runs. The
    rest of the process is ``other``: decoding, and threads that libraries keep (video encoders,
    back ends with more than one thread).
    """

    def __init__(self) -> None:
        self._start = time.process_time()
        self._seconds: dict[str, float] = {}

    def clocked(self, name: str, work: Callable[[T], R]) -> Callable[[T], R]:
        """Return `work` under a clock of that name."""
        self._seconds[name] = 0.0

        def run(item: T) -> R:
            begun = time.thread_time()
            try:
                return work(item)
            finally:
                self._seconds[name] += time.thread_time() - begun

        return run

    def found(self) -> dict[str, float]:
        """Return stage -> CPU seconds, ``other`` last; their sum is the process's so far."""
        total, stages = time.process_time() - self._start, dict(self._seconds)
        other = max(total - sum(stages.values()), 0.0)
        return {name: round(t, 4) for name, t in (*stages.items(), ("other", other))}
