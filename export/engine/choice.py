"""Which of two engines of one graph is faster on this machine: with the plugin, or without.

A plugin is also a barrier: what TensorRT would have merged across it stays apart. So on a machine
with a GPU both engines are built, run in turn, and the faster one is kept.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from prunus.runtime.card.card import ModelCard
from prunus.runtime.session.base import Session

WINDOWS, RUNS = 10, 10  # medians of windows of runs, the engines taking turns


def time_engines(
    engines: Mapping[str, Path],
    open_engine: Callable[[Path], Session],
    clock: Callable[[], int] = time.perf_counter_ns,
) -> dict[str, float]:
    """Run engines of the same graph in turn and time them.

    Args:
        engines: Plan files with sidecars, by a name.
        open_engine: Opens one.
        clock: Nanoseconds.

    Returns:
        Median time of a run in milliseconds, by name.
    """
    samples: dict[str, list[float]] = {name: [] for name in engines}
    with ExitStack() as stack:
        sessions = {name: stack.enter_context(open_engine(path)) for name, path in engines.items()}
        inputs = {name: example_inputs(session.card) for name, session in sessions.items()}
        for window in range(WINDOWS + 1):
            for name, session in sessions.items():
                times = []
                for _ in range(RUNS):
                    start = clock()
                    session.run(inputs[name])
                    times.append((clock() - start) / 1e6)
                if window:  # the first one warms up
                    samples[name] += times
    return {name: statistics.median(times) for name, times in samples.items()}


def example_inputs(card: ModelCard) -> dict[str, np.ndarray]:
    """Return one array per input: noise in the middle of the type's range, the same every time."""
    rng = np.random.default_rng(0)
    arrays = {}
    for spec in card.inputs:
        dtype = np.dtype(spec.dtype)
        if dtype.kind == "f":
            arrays[spec.name] = rng.uniform(0, 1, spec.shape).astype(dtype)
        elif dtype.kind == "b":
            arrays[spec.name] = np.ones(spec.shape, dtype)
        else:  # pixels and codes: both start at 0
            arrays[spec.name] = rng.integers(0, 100, spec.shape).astype(dtype)
    return arrays
