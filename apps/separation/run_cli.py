"""`prunus run separation`: hear one person out of several, chosen by the face."""

from __future__ import annotations

from typing import Annotated

import typer

from prunus.apps.cli.options import (
    Arithmetic,
    Backend,
    Debug,
    Device,
    Json,
    NoCudaGraph,
    Quiet,
    Separator,
    Threads,
    switches,
)


def separation(
    *,
    source: Annotated[
        str, typer.Option(help="clip.mp4, clip.mp4+speech.wav, 0+mic: or 0+mic:NAME.")
    ] = "0+mic:",
    sink: Annotated[
        list[str] | None,
        typer.Option(
            help="out.wav, out.mp4, speaker:, speaker:NAME, window:, web:8080, null: or -; "
            "repeatable."
        ),
    ] = None,
    model: Separator = None,
    face: Annotated[int, typer.Option(help="Number of the face that is heard.", min=1)] = 1,
    hop: Annotated[
        float | None,
        typer.Option(help="Seconds between windows; less is sooner and costs more.", min=0.04),
    ] = None,
    look_ahead: Annotated[
        int | None,
        typer.Option(
            help="Frames by which mouths wait to be steadied; default: 11, live 0.", min=0, max=11
        ),
    ] = None,
    detect_every: Annotated[int, typer.Option(help="Look for faces every n frames.", min=1)] = 10,
    seconds: Annotated[
        float | None, typer.Option(help="Stop after so many seconds of sound.", min=0.04)
    ] = None,
    no_overlay: Annotated[
        bool, typer.Option("--no-overlay", help="Do not draw on the pictures.")
    ] = False,
    threads: Threads = None,
    backend: Backend = "auto",
    device: Device = "cpu",
    arithmetic: Arithmetic = "auto",
    no_cuda_graph: NoCudaGraph = False,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="One more --sink.", metavar="SINK")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Separate the voice of one face from what a microphone or a clip holds.

    Faces are numbered on the picture; in a window the keys 1 to 9 or a click choose another one.
    Without a sink, clips get a neighbour named NAME-voice.mp4, live sources a page on
    http://localhost:8080/. Live, use headphones. Ctrl-C ends the run and completes the output. The
    exit code is 1 when the chosen face was never seen.

    \b
    Examples:
      prunus run separation --source talk.mp4 --face 2 --sink second.wav -o second.mp4
      prunus run separation --source 0+mic: --sink window: --sink speaker:
    """
    from prunus.apps.separation.app import SeparationOptions, run_separation

    sinks = [*(sink or []), *([output] if output is not None else [])]
    summary = run_separation(
        SeparationOptions(
            source=source,
            sinks=tuple(sinks),
            model=model,
            face=face,
            look_ahead=look_ahead,
            hop_s=hop,
            detect_every=detect_every,
            max_seconds=seconds,
            overlay=not no_overlay,
            backend=backend,
            threads=threads,
            device=device,
            switches=switches(arithmetic, no_cuda_graph),
            quiet=quiet,
        )
    )
    if as_json:
        typer.echo(summary.to_json(), err="-" in sinks)
    elif not quiet:
        typer.echo(summary.to_text(), err="-" in sinks)
    if summary.interrupted:
        raise typer.Exit(130)
