"""`prunus export`: one sub-command per model, each calling the script of that model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunus.apps.options import Debug, Json, Keep, Level, Output, Precision, Quiet, shown_progress

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Export a model as one static ONNX file that carries its own card.

\b
Examples:
  prunus export evitpose --variant tiny --level L2 -o evitpose-tiny-L2.onnx
  prunus export movenet tfjs/movenet-lightning.json -o lightning.onnx
""",
)


@app.command("evitpose")
def evitpose(
    *,
    variant: Annotated[str, typer.Option(help="Size: tiny, small or base.")] = "tiny",
    level: Level = None,
    keep: Keep = None,
    batch: Annotated[int, typer.Option(help="People per run: 1, 2, 4 or 8.", min=1)] = 1,
    precision: Precision = "fp32",
    checkpoint: Annotated[
        str | None,
        typer.Option(help="Shipped name, .safetensors file, or random; default: shipped."),
    ] = None,
    head: Annotated[
        str | None, typer.Option(help="classic, simple, subpixel, token or regression.")
    ] = None,
    joints: Annotated[int, typer.Option(help="Joints of the skeleton.", min=1)] = 17,
    heatmaps: Annotated[bool, typer.Option("--heatmaps", help="Also return the heatmaps.")] = False,
    calibration: Annotated[
        Path | None, typer.Option(help="Folder of pictures of people for int8 ranges.")
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
    from prunus.export import evitpose as script

    with shown_progress("export", quiet) as progress:
        path = script.export_evitpose(
            variant=variant,
            level=level,
            keep=keep,
            batch=batch,
            precision=precision,
            checkpoint=checkpoint,
            head=head,
            joints=joints,
            heatmaps=heatmaps,
            calibration=calibration,
            output=output,
            progress=progress,
        )
    report(path, as_json)


@app.command("movenet")
def movenet(
    source: Annotated[Path, typer.Argument(help="model.json of the TF.js package.")],
    *,
    kind: Annotated[str, typer.Option(help="lightning, thunder or multipose.")] = "lightning",
    output: Output = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Convert a MoveNet model from its public TF.js package.

    \b
    Examples:
      prunus export movenet package/models/movenet-lightning.json -o lightning.onnx
      prunus export movenet package/models/movenet-multipose.json --kind multipose -o people.onnx
    """
    from prunus.export import movenet as script

    path = script.export_movenet(source, kind, output or Path(f"movenet_{kind}.onnx"))
    report(path, as_json)


def report(path: Path, as_json: bool) -> None:
    """Print one line about the new file, or its card as JSON."""
    from prunus.runtime.artifact import read_card, sha256_of

    card = read_card(path)
    if as_json:
        typer.echo(card.to_json())
        return
    size = path.stat().st_size / 1e6
    typer.echo(f"wrote {path}  {size:.1f} MB  {card.name}  sha256 {sha256_of(path)[:12]}")
