"""The quantiser zoo: bits, parameters and the time of encoding in ONNX Runtime.

    python -m benchmarks.codec.quantizers              # half a minute
    python -m benchmarks.codec.quantizers --frames 75  # one second of codec frames per call

Each graph encodes the same number of random frames of its own width and must give exactly
PyTorch's codes before it is timed. All run in one process in turns, one thread.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prunus.export.common.sessions import graph_card
from prunus.export.graph.audit import require_clean
from prunus.export.graph.simplify import simplify
from prunus.export.graph.trace import trace
from prunus.models.blocks.quantizers.interface import EncodeGraph
from prunus.models.blocks.quantizers.zoo import QUANTIZERS, build_quantizer
from prunus.models.macs import count_parameters
from prunus.runtime.errors import CheckFailedError
from prunus.runtime.measure.latency import environment, summarise, time_window
from prunus.runtime.session.base import open as open_session

from ..record import RESULTS, finish, show, write_record

HEADS = (
    "quantiser", "numbers", "codes", "bits", "whole bits", "parameters", "table KiB", "p50 us",
    "p90 us", "ns/frame",
)  # fmt: skip


def measure(frames: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Check and time every quantiser; print the table.

    Raises:
        CheckFailedError: a graph's codes are not PyTorch's.
    """
    calls: dict[str, Any] = {}
    for name in QUANTIZERS:
        quantizer = build_quantizer(name).eval()
        x = torch.randn(frames, quantizer.dim, generator=torch.Generator().manual_seed(1))
        graph = simplify(trace(EncodeGraph(quantizer), (x,), ["frames"], ["codes"]))
        require_clean(graph)
        session = open_session(
            graph.SerializeToString(), "onnxruntime", threads=1, card=graph_card(graph)
        )
        feed = {"frames": x.numpy()}
        if not np.array_equal(session.run(feed)["codes"], quantizer.encode(x).numpy()):
            raise CheckFailedError(f"ONNX Runtime gives other codes than PyTorch for {name}.")
        calls[name] = functools.partial(session.run, feed)
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            window = time_window(call, seconds)
            if turn:  # the first turn warms up
                samples[name] += window
    return _table(samples, frames)


def _table(samples: dict[str, list[float]], frames: int) -> dict[str, Any]:
    rows, found = [], {}
    for name, times in samples.items():
        quantizer = build_quantizer(name)
        values = count_parameters(quantizer)
        latency = summarise(times, "engine")
        rows.append(
            [
                name, str(quantizer.dim), str(quantizer.codes_per_frame),
                f"{quantizer.bits_per_frame:.2f}", str(quantizer.packed_bits_per_frame),
                str(values), f"{values / 256:.0f}", f"{latency.p50_ms * 1e3:.0f}",
                f"{latency.p90_ms * 1e3:.0f}", f"{latency.p50_ms * 1e6 / frames:.0f}",
            ]
        )  # fmt: skip
        found[name] = {
            "bits": quantizer.bits_per_frame, "parameters": values, "samples_ms": times,
        }  # fmt: skip
    show(f"## {frames} frames per call, one thread", HEADS, rows)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=750, help="frames per call (default 750)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each quantiser")
    parser.add_argument("--seconds", type=float, default=0.3, help="length of a turn")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "quantizers.json")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)

    def work() -> None:
        found = measure(max(options.frames, 1), max(options.rounds, 1), options.seconds)
        body = {"environment": environment(1), "frames": options.frames, "cases": found}
        write_record(options.output, body)

    return finish(work, options.output)


if __name__ == "__main__":
    sys.exit(main())
