"""`prunus encode` and `prunus decode`: speech to a few hundred bytes per second, and back."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from prunus.apps.cli.options import Backend, Debug, Json, Quiet, Threads, shown_progress
from prunus.apps.common.model_files import DEFAULT_CODEC

Model = Annotated[
    str,
    typer.Option(
        "--model",
        help="NAME of NAME-encoder.onnx and NAME-decoder.onnx, or a codec that ships.",
        metavar="NAME",
    ),
]


def encode(
    source: Annotated[str, typer.Argument(help="Sound file (WAV, FLAC, Ogg), or - for a pipe.")],
    target: Annotated[str, typer.Argument(help="The .pcodec file, or - for a pipe.")],
    *,
    model: Model = DEFAULT_CODEC,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse another rate, channels or NaN.")
    ] = False,
    backend: Backend = "auto",
    threads: Threads = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Encode speech with a neural codec.

    Other sample rates are resampled and channels averaged, with a notice.

    \b
    Examples:
      prunus encode talk.wav talk.pcodec
      cat talk.wav | prunus encode - - --model wavtokenizer-tok75-fp32 --quiet > talk.pcodec
    """
    from prunus.apps.codec.app import encode_file, open_codec

    with open_codec(model, ("encoder", "speaker"), backend, threads) as codec:
        with shown_progress("encode", quiet) as progress:
            summary = encode_file(codec, source, target, strict=strict, progress=progress)
    _report(summary.to_dict(), summary.to_text(), as_json, quiet, target)


def decode(
    source: Annotated[str, typer.Argument(help="The .pcodec file, or - for a pipe.")],
    target: Annotated[str, typer.Argument(help="The WAV file, or - for a pipe.")],
    *,
    model: Model = DEFAULT_CODEC,
    backend: Backend = "auto",
    threads: Threads = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Decode a .pcodec file to 16-bit WAV.

    A damaged file is decoded up to the damage; the exit code is then 1.

    \b
    Examples:
      prunus decode talk.pcodec talk-decoded.wav
      cat talk.pcodec | prunus decode - - --model wavtokenizer-tok75-fp32 --quiet | aplay
    """
    from prunus.apps.codec.app import decode_file, open_codec

    with shown_progress("decode", quiet) as progress:
        summary = decode_file(
            lambda: open_codec(model, ("decoder",), backend, threads),
            source,
            target,
            progress=progress,
        )
    _report(summary.to_dict(), summary.to_text(), as_json, quiet and not summary.damage, target)
    if summary.damage:
        raise typer.Exit(1)


def _report(values: dict[str, object], text: str, as_json: bool, quiet: bool, target: str) -> None:
    piped = target == "-"  # standard output carries the result
    if as_json:
        typer.echo(json.dumps(values, indent=1, sort_keys=True), err=piped)
    elif not quiet:
        typer.echo(text, err=piped)
