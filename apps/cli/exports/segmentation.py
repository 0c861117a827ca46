"""`prunus export edaformer` and `selfie`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from prunus.apps.cli.exports.options import Activations, Bf16, Seed, check_precision, report
from prunus.apps.cli.options import Debug, Json, Output, Precision, Quiet, shown_progress


def edaformer(
    *,
    variant: Annotated[
        str | None, typer.Option(help="Size: t or b; default: what the weights are, else t.")
    ] = None,
    isr: Annotated[
        str,
        typer.Option(
            help="Key pooling: off, published, maximum, or digits: encoder stages 1-4, then the "
            "decoder at 1/8, 1/16, 1/32.",
            metavar="2211-222",
        ),
    ] = "off",
    size: Annotated[str, typer.Option(help="Input as HEIGHTxWIDTH.")] = "512x512",
    classes: Annotated[
        int | None, typer.Option(help="Number of classes; default: the weights', else 150.", min=1)
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Weights file, person (shipped) or random; default: person, random ones when a "
            "variant or classes are asked for."
        ),
    ] = None,
    fit: Annotated[
        str, typer.Option(help="letterbox, stretch, ade20k or cityscapes (sliding windows).")
    ] = "letterbox",
    logits: Annotated[
        bool, typer.Option("--logits", help="Give logits at 1/8 instead of class numbers.")
    ] = False,
    probability: Annotated[
        bool, typer.Option("--probability", help="Give the second of two classes' probability.")
    ] = False,
    batch: Annotated[int, typer.Option(help="Images per run.", min=1)] = 1,
    precision: Precision = "fp32",
    activations: Activations = "int8",
    bf16: Bf16 = False,
    literal: Annotated[
        bool, typer.Option("--literal", help="As published, without the exact rewrites.")
    ] = False,
    full_argmax: Annotated[
        bool, typer.Option("--full-argmax", help="Compare all classes at every pixel.")
    ] = False,
    drop_remainder: Annotated[
        bool,
        typer.Option("--drop-remainder", help="Accept sizes at which poolings lose the last keys."),
    ] = False,
    seed: Seed = 0,
    calibration: Annotated[
        Path | None, typer.Option(help="Folder, picture, clip or array file; default: bundled.")
    ] = None,
    output: Output = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Export EDAFormer; ISR enlarges its key pooling without retraining.

    \b
    Examples:
      prunus export edaformer --size 256x256 --isr published --probability -o person.onnx
      prunus export edaformer --variant t --isr 2211-222 --size 512x512
      prunus export edaformer --weights edaformer-b.safetensors --isr published --precision fp16
    """
    check_precision(precision)
    from prunus.export import edaformer as script

    with shown_progress("export", quiet) as progress:
        path = script.export_edaformer(
            variant,
            isr=isr,
            size=size,
            classes=classes,
            weights=weights,
            fit=fit,
            logits=logits,
            probability=probability,
            batch=batch,
            precision=cast(Any, precision),
            activations=cast(Any, activations),
            bf16=bf16,
            literal=literal,
            full_argmax=full_argmax,
            drop_remainder=drop_remainder,
            seed=seed,
            calibration=calibration,
            output=output,
            progress=progress,
        )
    report(path, as_json)


def selfie(
    package: Annotated[Path, typer.Argument(help="Folder of the unpacked npm package.")],
    *,
    output: Output = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Convert MediaPipe's selfie segmentation from the npm package that carries its weights.

    \b
    Examples:
      prunus export selfie package/ -o selfie.onnx
    """
    from prunus.export import selfie as script

    report(script.export_selfie(package, output or Path("selfie.onnx")), as_json)
