"""`prunus export dolphin`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from prunus.apps.cli.exports.options import Seed, check_precision, report
from prunus.apps.cli.options import Debug, Json, Output, Precision, Quiet, shown_progress


def dolphin(
    *,
    variant: Annotated[str, typer.Option(help="Size: base (published) or nano.")] = "base",
    seconds: Annotated[float, typer.Option(help="Length of a window, in steps of 0.04 s.")] = 2.0,
    precision: Precision = "fp32",
    heat_radius: Annotated[
        int | None,
        typer.Option(help="Taps per side of the heat filters; default: 32 (base), 16 (nano)."),
    ] = None,
    token_step: Annotated[
        int, typer.Option(help="2: half the tokens of the global attention (approximation).")
    ] = 1,
    lip_seconds: Annotated[
        float, typer.Option(help="Length of a run of the lip graph: hop + 0.88 s or more.")
    ] = 1.4,
    part: Annotated[
        list[str] | None, typer.Option(help="lips or voice; repeatable. Default: both.")
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help="Weights, folder or file, or random; default: shipped (nano), else UNTRAINED."
        ),
    ] = None,
    seed: Seed = 0,
    calibration: Annotated[
        Path | None,
        typer.Option(help=".npz with mouth and mixture, or a recording; default: synthetic."),
    ] = None,
    rewrite: Annotated[
        bool,
        typer.Option(help="Lips as a batch of frames, long filters in 2-D: same numbers, faster."),
    ] = True,
    small: Annotated[
        bool, typer.Option("--small", help="Store constants compactly; no number changes.")
    ] = False,
    output: Output = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Export Dolphin as NAME-lips.onnx (25 frames a second) and NAME-voice.onnx (16 kHz).

    \b
    Examples:
      prunus export dolphin --variant nano --seconds 2 -o nano
      prunus export dolphin --checkpoint dolphin.prunus.safetensors --precision fp16 -o dolphin
    """
    check_precision(precision)
    from prunus.export import dolphin as script

    with shown_progress("export", quiet) as progress:
        paths = script.export_dolphin(
            variant,
            seconds=seconds,
            parts=script.parse_parts(part),
            precision=cast(Any, precision),
            heat_radius=heat_radius,
            token_step=token_step,
            lip_seconds=lip_seconds,
            checkpoint=checkpoint,
            seed=seed,
            calibration=calibration,
            rewrite=rewrite,
            small=small,
            output=output,
            progress=progress,
        )
    for path in paths:
        report(path, as_json)
    if not quiet and not as_json:
        for line in script.approximations(paths):
            typer.echo(line)
