"""`prunus bench`: latency side by side, each runner in a process of its own, in turns."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunus.apps.cli.options import Debug, Json, Output, Quiet, Threads, shown_progress


def bench(
    model: Annotated[list[str], typer.Argument(help="Model files or shipped names.")],
    *,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            "--backend",
            help="onnxruntime, openvino[-f32|-bf16], tensorrt; repeatable.",
            metavar="NAME",
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(help="Also measure torch-eager or torch-compile on the same network."),
    ] = None,
    boundary: Annotated[
        str, typer.Option(help="engine: one call; pipeline: boxes to joints, video to mask.")
    ] = "engine",
    rounds: Annotated[int, typer.Option(help="Turns of each runner (A B A B is 2).", min=1)] = 3,
    seconds: Annotated[float, typer.Option(help="Length of one turn.", min=0.1)] = 2.0,
    threads: Threads = None,
    output: Output = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure latency of models and back ends side by side and print the ratios.

    \b
    Examples:
      prunus bench dense.onnx pruned.onnx --backend onnxruntime --backend openvino
      prunus bench evitpose-tiny-L0.onnx --against torch-eager -o results.json
    """
    from prunus.apps.bench.runs import run_in_turns, runners_for

    runners = runners_for(
        model, tuple(backend or ("auto",)), tuple(against or ()), threads, boundary
    )
    with shown_progress("bench", quiet) as progress:
        result = run_in_turns(runners, rounds=rounds, seconds=seconds, progress=progress)
    if output is not None:
        result.write(Path(output))
    typer.echo(result.to_json() if as_json else result.to_text())
