"""`prunus export nsfcodec`, `wavtokenizer`, `fusecodec` and `freecodec`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from prunus.apps.cli.exports.options import Seed, check_precision, report
from prunus.apps.cli.options import Debug, Json, Output, Precision, Quiet, shown_progress

Checkpoint = Annotated[
    str | None,
    typer.Option(help="File of `prunus models import`; default: UNTRAINED random weights."),
]
Sound = Annotated[
    Path | None, typer.Option(help="Recording for comparison and int8; default: synthetic.")
]
Window = Annotated[int | None, typer.Option(help="Frames per window of the graph.", min=1)]
Left = Annotated[int | None, typer.Option(help="Of these, past context.", min=0)]
Right = Annotated[int | None, typer.Option(help="Of these, future context.", min=0)]
Step = Annotated[int | None, typer.Option(help="Frames per step of the step graph.", min=1)]


def nsfcodec(
    *,
    step: Step = None,
    small: Annotated[
        bool, typer.Option("--small", help="Store constants compactly; no number changes.")
    ] = False,
    precision: Precision = "fp32",
    checkpoint: Annotated[
        str | None,
        typer.Option(help="File of the trainer, or random; default: the shipped weights."),
    ] = None,
    seed: Seed = 0,
    sound: Sound = None,
    output: Output = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Export the codec that prunus trained: encoder and decoder in exact steps of 20 ms.

    \b
    Examples:
      prunus export nsfcodec --step 2 -o nsfcodec-40ms
      prunus export nsfcodec --checkpoint mine.safetensors --small -o mine
    """
    from prunus.export.nsfcodec import export_nsfcodec as script

    options = {"step": step, "small": small or None}
    _export_codec(script, options, precision, checkpoint, seed, sound, output, as_json, quiet)


def wavtokenizer(
    *,
    variant: Annotated[str, typer.Option(help="tok75 or tok40 (tokens per second).")] = "tok75",
    step: Step = None,
    window: Window = None,
    left: Left = None,
    right: Right = None,
    precision: Precision = "fp32",
    checkpoint: Checkpoint = None,
    seed: Seed = 0,
    sound: Sound = None,
    output: Output = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Export WavTokenizer as NAME-encoder.onnx (exact steps) and NAME-decoder.onnx (windows).

    \b
    Examples:
      prunus export wavtokenizer --checkpoint wavtokenizer.safetensors -o wavtokenizer
      prunus export wavtokenizer --variant tok40 --precision fp16 -o tok40
    """
    from prunus.export.wavtokenizer import export_wavtokenizer as script

    options = {"step": step, "window": window, "left": left, "right": right, "variant": variant}
    _export_codec(script, options, precision, checkpoint, seed, sound, output, as_json, quiet)


def fusecodec(
    *,
    step: Step = None,
    window: Window = None,
    left: Left = None,
    right: Right = None,
    precision: Precision = "fp32",
    checkpoint: Checkpoint = None,
    seed: Seed = 0,
    sound: Sound = None,
    output: Output = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Export FuseCodec's generator, which is SpeechTokenizer's: encoder (windows), decoder (steps).

    \b
    Examples:
      prunus export fusecodec --checkpoint speechtokenizer.safetensors -o speech
      prunus export fusecodec --precision fp16 -o speech-half
    """
    from prunus.export.fusecodec import export_fusecodec as script

    options = {"step": step, "window": window, "left": left, "right": right}
    _export_codec(script, options, precision, checkpoint, seed, sound, output, as_json, quiet)


def freecodec(
    *,
    window: Window = None,
    left: Left = None,
    right: Right = None,
    precision: Precision = "fp32",
    checkpoint: Checkpoint = None,
    seed: Seed = 0,
    sound: Sound = None,
    output: Output = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Export FreeCodec (paper architecture; no published weights): encoder, decoder, speaker.

    \b
    Examples:
      prunus export freecodec -o freecodec
      prunus export freecodec --checkpoint mine.safetensors --precision int8 -o freecodec-int8
    """
    from prunus.export.freecodec import export_freecodec as script

    options = {"window": window, "left": left, "right": right}
    _export_codec(script, options, precision, checkpoint, seed, sound, output, as_json, quiet)


def _export_codec(  # noqa: PLR0917
    script: Any,
    options: dict[str, Any],
    precision: str,
    checkpoint: str | None,
    seed: int,
    sound: Path | None,
    output: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Call the script of a codec with the options that were given, and report every file."""
    check_precision(precision)
    given = {name: value for name, value in options.items() if value is not None}
    with shown_progress("export", quiet) as progress:
        paths = script(
            **given, precision=precision, checkpoint=checkpoint, seed=seed, sound=sound,
            output=output, progress=progress,
        )  # fmt: skip
    for path in paths:
        report(path, as_json)
