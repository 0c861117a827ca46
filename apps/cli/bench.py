"""`prunus bench`: latency side by side, each runner in a process of its own, in turns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prunus.apps.common import options as shared
from prunus.runtime.command import Console
from prunus.runtime.options import argument, option


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What `prunus bench` does.

    \b
    Examples:
      prunus bench dense.onnx pruned.onnx --backend onnxruntime --backend openvino
      prunus bench evitpose-tiny-L0.onnx --against torch-eager -o results.json
    """

    model: tuple[str, ...] = argument("Model files or listed names.")
    backend: tuple[str, ...] = option(
        "onnxruntime, openvino[-f32|-bf16], tensorrt; repeatable.",
        default=("auto",), metavar="NAME",
    )  # fmt: skip
    device: str = shared.device()
    arithmetic: shared.Arithmetic = shared.arithmetic()
    against: tuple[str, ...] = option(
        "Also measure torch-eager or torch-compile on the same network.", default=()
    )
    boundary: Literal["engine", "pipeline"] = option(
        "engine: one call; pipeline: boxes to joints, video to mask.", default="engine"
    )
    rounds: int = option("Turns of each runner (A B A B is 2).", default=3, minimum=1)
    seconds: float = option("Length of one turn.", default=2.0, minimum=0.1)
    threads: int | None = shared.threads()
    shape: tuple[str, ...] = shared.shape()
    output: Path | None = shared.output("The raw samples, as JSON.")


def bench(options: BenchOptions, console: Console) -> None:
    """Measure models and back ends in turns and print the ratios."""
    from prunus.apps.bench.runs import run_in_turns, runners_for

    runners = runners_for(
        options.model,
        shared.with_arithmetic(options.backend, options.arithmetic),
        options.against,
        options.threads,
        options.boundary,
        device=options.device,
        shapes=options.shape,
    )
    with console.progress("bench") as progress:
        result = run_in_turns(
            runners, rounds=options.rounds, seconds=options.seconds, progress=progress
        )
    if options.output is not None:
        result.write(options.output)
    console.say(result.to_text(), result.to_json())
