"""`prunus bench`: latency side by side, in turns, or of a served model against offered load."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prunus.apps.common import options as shared
from prunus.apps.common.media import PORTRAIT
from prunus.runtime.command import Console
from prunus.runtime.errors import SourceError, UsageError
from prunus.runtime.json_text import json_text
from prunus.runtime.options import argument, option, parameters
from prunus.runtime.references import load

# What means something without --server alone, and with it alone.
_OF_MODELS = (
    "backend", "device", "arithmetic", "against", "boundary", "through", "rounds", "threads",
    "shape",
)  # fmt: skip
_OF_A_SERVER = ("rate", "clients", "body")
_LIVE = {
    "glass_to_glass": "prunus.apps.bench.picture_delay:measure_glass",
    "mic_to_speaker": "prunus.apps.bench.sound_delay:measure_delay",
}


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What `prunus bench` does.

    With --server it asks a running server at rising rates: of Triton the model that is named, of
    prunus serve http the one that it has (the token is that of PRUNUS_SERVE_TOKEN).

    \b
    Examples:
      prunus bench dense.onnx pruned.onnx --backend onnxruntime --backend openvino
      prunus bench evitpose-tiny-L0.onnx --against torch-eager -o results.json
      prunus bench pose --server http://127.0.0.1:8000
      prunus bench nsfcodec --boundary mic_to_speaker --seconds 10
    """

    model: tuple[str, ...] = argument(
        "Model files or listed names; with --server the model's name on a Triton server.",
        default=(),
    )
    backend: tuple[str, ...] = option(
        "onnxruntime, openvino[-f32|-bf16], tensorrt; repeatable.",
        default=("auto",), metavar="NAME",
    )  # fmt: skip
    device: str = shared.device()
    arithmetic: shared.Arithmetic = shared.arithmetic()
    against: tuple[str, ...] = option(
        "Also measure torch-eager or torch-compile on the same network.", default=()
    )
    boundary: Literal["engine", "pipeline", "glass_to_glass", "mic_to_speaker"] = option(
        "engine: one call; pipeline: boxes to joints, video to mask; live, from end to end: "
        "glass_to_glass for pictures, mic_to_speaker for codecs and separators.", default="engine",
    )  # fmt: skip
    through: str = option(
        "mic_to_speaker: two null sinks of PulseAudio, HOLE:VOICE; glass_to_glass: browser, the "
        "page in Chromium; default: ends in memory.", default="", metavar="WAY",
    )  # fmt: skip
    rounds: int = option("Turns of each runner (A B A B is 2).", default=3, minimum=1)
    seconds: float = option("Length of one turn.", default=2.0, minimum=0.1)
    threads: int | None = shared.threads()
    shape: tuple[str, ...] = shared.shape()
    server: str | None = option(
        "Ask this server instead: latency at offered rates.", default=None, metavar="URL"
    )
    rate: tuple[float, ...] = option(
        "Requests per second that are offered, repeatable; default: up to the server's "
        "limit.", default=(), minimum=0.01, maximum=100_000,
    )  # fmt: skip
    clients: int = option("Most requests under way at a time.", default=64, minimum=1, maximum=1024)
    body: Path = option(
        "File that is sent to the server; default: a picture of a person.", default=PORTRAIT
    )
    output: Path | None = shared.output("The raw samples, as JSON.")


def bench(options: BenchOptions, console: Console) -> None:
    """Measure models and back ends in turns and print the ratios, or a server under load.

    Raises:
        UsageError: no model, several of a server, or an option that nothing would heed.
        SourceError: the server does not answer, or the body cannot be read.
    """
    _refuse_unheeded(options)
    if options.server is not None:
        _bench_server(options, options.server, console)
        return
    if not options.model:
        raise UsageError("Missing argument 'MODEL'.", "Name a file, a listed name, or --server.")
    if options.boundary in _LIVE:
        _bench_live(options, console)
        return
    if options.through:
        raise UsageError(
            "Got --through without --boundary mic_to_speaker or glass_to_glass.", "Leave it out."
        )
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


def _refuse_unheeded(options: BenchOptions) -> None:
    unheeded = _OF_A_SERVER if options.server is None else _OF_MODELS
    for one in parameters(BenchOptions):
        if one.name in unheeded and getattr(options, one.name) != one.default:
            with_it = "without" if options.server is None else "with"
            raise UsageError(
                f"Got {one.flags[0]} {with_it} --server, where it means nothing.", "Leave it out."
            )


def _bench_live(options: BenchOptions, console: Console) -> None:
    from prunus.runtime.card.artifact import atomic_path

    measure = load(_LIVE[options.boundary])
    if options.against or options.shape:
        raise UsageError("Got --against or --shape for a live run.", "Leave them out.")
    length, found = options.rounds * options.seconds, []
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(atomic_path(options.output)) if options.output else None
        for model in options.model:
            for backend in options.backend:
                compute = shared.BackendChoice(
                    backend, options.device, options.threads, options.arithmetic
                )
                found.append(measure(model, compute, length, options.through))
        told = json_text([dataclasses.asdict(one) for one in found], indent=1)
        if path is not None:
            path.write_text(told + "\n")
    console.say("\n".join(one.to_text() for one in found), told)


def _bench_server(options: BenchOptions, server: str, console: Console) -> None:
    from prunus.apps.bench.load import measure_load
    from prunus.apps.serve.options import TOKEN
    from prunus.runtime.card.artifact import atomic_path

    if len(options.model) > 1:
        raise UsageError(f"Got {len(options.model)} models and --server; expected one or none.")
    try:
        body = options.body.read_bytes()
    except OSError as error:
        raise SourceError(f"Cannot read {options.body}: {error.strerror}.") from None
    with contextlib.ExitStack() as stack:
        # Before the load, so that minutes of it are not lost where nothing can be written.
        path = stack.enter_context(atomic_path(options.output)) if options.output else None
        with console.progress("bench") as progress:
            curve = measure_load(
                server, "".join(options.model), body, progress, rates=options.rate,
                clients=options.clients, seconds=options.seconds, token=os.environ.get(TOKEN, ""),
            )  # fmt: skip
        if path is not None:
            path.write_text(curve.to_json() + "\n")
    console.say(curve.to_text(), curve.to_json())
