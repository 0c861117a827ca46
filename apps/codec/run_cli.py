"""`prunus run codec`: hear yourself at one kilobit per second, or speak to another machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunus.apps.cli.options import Backend, Debug, Json, Quiet, Threads
from prunus.apps.codec.encode_cli import Model
from prunus.apps.common.model_files import DEFAULT_CODEC


def codec(
    *,
    model: Model = DEFAULT_CODEC,
    source: Annotated[
        str, typer.Option(help="mic:, mic:NAME, sound file, talk.pcodec, synthetic:5, udp:PORT, -.")
    ] = "mic:",
    sink: Annotated[
        list[str] | None,
        typer.Option(
            help="speaker:, out.wav, talk.pcodec, udp:HOST:PORT, null: or -; repeatable. "
            "Default: speaker:."
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse another rate, channels or NaN.")
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(help="Stop after so many seconds of sound.", min=0.01)
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Spectrograms before and after, as a picture.")
    ] = None,
    packet_frames: Annotated[
        int | None, typer.Option(help="UDP: frames per packet; default: 60 ms.", min=1)
    ] = None,
    redundancy: Annotated[
        int, typer.Option(help="UDP: earlier packets that each one repeats.", min=0, max=8)
    ] = 1,
    jitter: Annotated[
        int, typer.Option(help="UDP: packets to wait for a late one.", min=0, max=100)
    ] = 2,
    loss: Annotated[
        float, typer.Option(help="UDP: throw away so many % of what arrives.", min=0, max=100)
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="UDP: which packets --loss throws away.")] = 0,
    speed: Annotated[
        float, typer.Option(help="UDP: send files at so many times real time; 0: at once.", min=0)
    ] = 1.0,
    idle: Annotated[
        float, typer.Option(help="UDP: end so many seconds after the last new packet.", min=0.1)
    ] = 3.0,
    wait: Annotated[
        float, typer.Option(help="UDP: wait so many seconds for the first packet.", min=0.1)
    ] = 60.0,
    key: Annotated[
        str | None,
        typer.Option(
            help="UDP: secret of both ends, or @FILE; needed beyond this machine, or 'none'.",
            metavar="SECRET",
        ),
    ] = None,
    backend: Backend = "auto",
    threads: Threads = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="One more --sink.", metavar="SINK")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Send speech through a codec: microphone to speaker, file to file, machine to machine.

    Use headphones with a microphone. Ctrl-C ends the run and completes the output; so does a
    device that is lost, with exit code 2.

    \b
    Examples:
      prunus run codec --source talk.wav -o again.wav --plot talk.png
      prunus run codec --model NAME --source udp:5004 --sink speaker: --loss 5
      prunus run codec --model NAME --source mic: --sink udp:127.0.0.1:5004
    """
    from prunus.apps.codec.live import CodecOptions, run_codec
    from prunus.runtime.errors import CheckFailedError, SourceError

    sinks = (*(sink or ()), *((output,) if output is not None else ())) or ("speaker:",)
    result = run_codec(
        CodecOptions(
            source=source, sinks=sinks, model=model, strict=strict, seconds=seconds, plot=plot,
            packet_frames=packet_frames, redundancy=redundancy, jitter=jitter, loss_percent=loss,
            seed=seed, speed=speed, idle_seconds=idle,
            wait_seconds=wait, key=key, backend=backend, threads=threads,
            quiet=quiet,
        )
    )  # fmt: skip
    piped = "-" in sinks  # standard output carries the sound
    if as_json:
        typer.echo(result.to_json(), err=piped)
    elif not quiet:
        typer.echo(result.to_text(), err=piped)
    if result.interrupted:
        raise typer.Exit(130)
    if result.damage:
        kept = "What came before is complete in " + ", ".join(sinks) + "."
        if source.endswith(".pcodec"):
            raise CheckFailedError(f"{source}: {result.damage}.", kept)
        raise SourceError(result.damage, kept)
