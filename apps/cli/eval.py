"""`prunus eval`: accuracy on labelled pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from prunus.apps.cli.options import (
    Backend,
    Debug,
    Json,
    Level,
    Output,
    Quiet,
    Threads,
    shown_progress,
)
from prunus.apps.codec.eval_cli import codec
from prunus.apps.separation.eval_cli import separation

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Measure accuracy on labelled data.

\b
Examples:
  prunus eval pose coco/val2017 --annotations coco/person_keypoints_val2017.json
  prunus eval segmentation ADE/images/validation --masks ADE/annotations/validation \\
    --layout ade20k --model edaformer-t.onnx
""",
)

app.command("codec")(codec)
app.command("separation")(separation)


@app.command("pose")
def pose(
    folder: Annotated[Path, typer.Argument(help="Folder of pictures.")],
    *,
    annotations: Annotated[Path, typer.Option(help="COCO keypoint annotations (JSON).")],
    model: Annotated[
        list[str] | None, typer.Option(help="Model file or name; repeat per batch size.")
    ] = None,
    level: Level = None,
    boxes: Annotated[
        Path | None, typer.Option(help="COCO detection results; default: the labelled boxes.")
    ] = None,
    flip_test: Annotated[
        bool, typer.Option("--flip-test", help="Average with the mirror image.")
    ] = False,
    output: Output = None,
    backend: Backend = "auto",
    threads: Threads = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Report COCO AP, OKS and PCK of a pose model on any COCO-format folder.

    Damaged pictures are left out and named, and the exit code is then 1.

    \b
    Examples:
      prunus eval pose val2017 --annotations person_keypoints_val2017.json --model a.onnx
      prunus eval pose pictures --annotations labels.json --model movenet_lightning --json
    """
    from prunus.apps.common.model_files import pose_models
    from prunus.apps.pose.evaluate import evaluate_pose_folder
    from prunus.runtime.tasks.pose.estimator import PoseEstimator

    with (
        PoseEstimator.open(pose_models(model or [], level), backend, threads) as estimator,
        shown_progress("eval", quiet) as progress,
    ):
        result = evaluate_pose_folder(
            estimator, folder, annotations, boxes, flip_test=flip_test, progress=progress
        )
    if output is not None:
        result.save_results(output)
    if as_json:
        typer.echo(json.dumps(result.to_dict(), indent=1, sort_keys=True))
    else:
        typer.echo(result.to_text().rstrip())
    if result.skipped:
        raise typer.Exit(1)


@app.command("segmentation")
def segmentation(
    folder: Annotated[Path, typer.Argument(help="Folder of pictures.")],
    *,
    masks: Annotated[Path, typer.Option(help="Folder of label PNGs, arranged as the pictures.")],
    layout: Annotated[
        str, typer.Option(help="plain, ade20k, cityscapes or cocostuff: names and numbers.")
    ] = "plain",
    model: Annotated[
        str | None, typer.Option(help="Model file or shipped name; default: the shipped one.")
    ] = None,
    ignore: Annotated[int, typer.Option(help="Label of pixels that are not judged.")] = 255,
    positive: Annotated[
        str | None,
        typer.Option(help="Two-class models: labels that are the class.", metavar="11,12"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="At most so many pictures, spread evenly.", min=1)
    ] = None,
    output: Output = None,
    backend: Backend = "auto",
    threads: Threads = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Report mIoU, pixel accuracy and a table of classes on any folder of pictures and masks.

    The label of picture a/b.jpg is MASKS/a/b.png; its grey values or palette indices are class
    numbers. Pictures that cannot be judged are left out and named, and the exit code is then 1.

    \b
    Examples:
      prunus eval segmentation leftImg8bit/val --masks gtFine/val --layout cityscapes --model a.onnx
      prunus eval segmentation pictures --masks labels --positive 15 -o scores.json
    """
    from prunus.apps.common.model_files import segmentation_model
    from prunus.apps.segmentation.evaluate import evaluate_segmentation_folder, parse_numbers
    from prunus.runtime.tasks.segmentation.segmenter import Segmenter

    numbers = parse_numbers(positive)
    with (
        Segmenter.open(segmentation_model(model), backend, threads) as segmenter,
        shown_progress("eval", quiet) as progress,
    ):
        result = evaluate_segmentation_folder(
            segmenter, folder, masks, layout=layout, ignored=ignore, positive=numbers, limit=limit,
            progress=progress,
        )  # fmt: skip
    if output is not None:
        result.save(output)
    if as_json:
        typer.echo(json.dumps(result.to_dict(), indent=1, sort_keys=True))
    else:
        typer.echo(result.to_text())
    if result.skipped:
        raise typer.Exit(1)
