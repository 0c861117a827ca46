"""The child process of one runner: takes orders as JSON lines, answers in JSON lines.

Orders are ``{"do": "open" | "window" | "close"}``. Answers leave through a copy of the standard
output that nothing else writes to: what libraries print goes to the standard error instead.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from prunus.runtime.arrays import read_arrays
from prunus.runtime.errors import PrunusError
from prunus.runtime.measure.latency import peak_memory_bytes, time_window
from prunus.runtime.measure.runner import Runner, RunnerSpec, open_runner

Order = dict[str, Any]


class Worker:
    """Holds the opened runner between orders."""

    def __init__(self) -> None:
        self._runner: Runner | None = None

    def open(self, order: Order) -> Order:
        """Open the runner and run it once."""
        start = time.perf_counter()
        inputs = read_arrays(order["inputs"])
        self._runner = open_runner(RunnerSpec.from_dict(order["spec"]), inputs)
        opened = time.perf_counter()
        self._runner.call()
        first = time.perf_counter() - opened
        return {
            "description": self._runner.description,
            "settings": dict(self._runner.settings),
            "open_ms": 1e3 * (opened - start),
            "first_run_ms": 1e3 * first,
        }

    def window(self, order: Order) -> Order:
        """Time calls for the seconds asked for."""
        if self._runner is None:
            raise PrunusError("The worker was asked to measure before it was opened.")
        samples = time_window(
            self._runner.call, order["seconds"], order["minimum"], order.get("clock", "wall")
        )
        return {"samples_ms": samples}

    def close(self, order: Order) -> Order:
        """Free the runner and tell the memory it took."""
        peak = peak_memory_bytes()
        if self._runner is not None:
            self._runner.close()
        return {"peak_memory_bytes": peak}


def serve(orders: TextIO, answers: TextIO) -> None:
    """Answer orders until ``close`` or the end of the stream."""
    worker = Worker()
    known: dict[str, Callable[[Order], Order]] = {
        "open": worker.open, "window": worker.window, "close": worker.close,
    }  # fmt: skip
    for line in orders:
        order = json.loads(line)
        try:
            answer = known[order["do"]](order)
        except PrunusError as error:
            answer = {"error": error.message, "hint": error.hint, "exit_code": error.exit_code}
        except Exception as error:  # a target's code is foreign: its fault must reach the table
            answer = {"error": f"{type(error).__name__}: {error}", "hint": "", "exit_code": 1}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        if order["do"] == "close" or "error" in answer:
            break


def main() -> None:
    """Serve on the standard streams."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
