"""`prunus eval codec`: a codec on recordings, beside the original and beside Opus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from prunus.apps.cli.options import Backend, Debug, Json, Output, Quiet, Threads, shown_progress
from prunus.apps.codec.encode_cli import Model
from prunus.apps.common.model_files import DEFAULT_CODEC


def codec(
    recordings: Annotated[list[Path], typer.Argument(help="Sound files, and folders of them.")],
    *,
    model: Model = DEFAULT_CODEC,
    judge: Annotated[
        list[str] | None,
        typer.Option(help="pesq, stoi, dnsmos, wer, speaker; repeatable. Default: installed ones."),
    ] = None,
    no_judges: Annotated[
        bool, typer.Option("--no-judges", help="Rate, distortion and codebooks alone.")
    ] = False,
    peer: Annotated[
        list[str] | None, typer.Option(help="opus:KBPS to stand beside; repeatable.")
    ] = None,
    loss: Annotated[
        str, typer.Option(help="Packet losses in per cent, concealed; 0 is a file.")
    ] = "0",
    seconds: Annotated[
        float | None, typer.Option(help="Take so much of each recording at most.", min=0.1)
    ] = None,
    output: Output = None,
    backend: Backend = "auto",
    threads: Threads = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Report rate, distortion, intelligibility, speaker, codebooks and repeatability of a codec.

    A text file of the same name beside a recording is what is said in it; without one, word errors
    count against what the recogniser hears in the original (it knows US English).

    \b
    Examples:
      prunus eval codec speech/ --peer opus:6 --peer opus:9.5
      prunus eval codec talk.wav --model NAME --loss 0,5,10 --judge pesq --judge stoi --json
    """
    from prunus.apps.codec.app import open_codec
    from prunus.apps.codec.evaluate import evaluate_codec, parse_losses, read_recordings
    from prunus.apps.codec.peers import parse_peer
    from prunus.apps.common.speech_metrics import open_judges
    from prunus.runtime.card.artifact import atomic_path

    losses, peers = parse_losses(loss), [parse_peer(text) for text in peer or []]
    judges, missing = open_judges([] if no_judges else judge)
    found = read_recordings(recordings, seconds)
    with (
        open_codec(model, ("encoder", "decoder", "speaker"), backend, threads) as opened,
        shown_progress("eval", quiet) as progress,
    ):
        result = evaluate_codec(
            opened, found, judges, losses_percent=losses, peers=peers, missing=missing,
            progress=progress,
        )  # fmt: skip
    text = json.dumps(result.to_dict(), indent=1, sort_keys=True)
    if output is not None:
        with atomic_path(output) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    typer.echo(text if as_json else result.to_text())
