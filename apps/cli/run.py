"""`prunus run`: live apps on cameras, files and streams."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunus.apps.cli.options import (
    Arithmetic,
    Backend,
    Debug,
    Device,
    Json,
    Level,
    NoCudaGraph,
    Quiet,
    Threads,
    switches,
)
from prunus.apps.codec.run_cli import codec
from prunus.apps.separation.run_cli import separation

if TYPE_CHECKING:
    from prunus.apps.pose.app import RunSummary
    from prunus.apps.segmentation.app import SegmentationSummary

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Run a model on a camera, a file or a stream, without PyTorch.

\b
Examples:
  prunus run pose --source 0 --sink web:8080
  prunus run pose --source street.mp4 --sink street-pose.mp4 --json-out street.json
  prunus run segmentation --source 0 --sink window: --mode blur
""",
)

app.command("codec")(codec)
app.command("separation")(separation)

Source = Annotated[
    str,
    typer.Option(help="0, /dev/video0, picture, folder, video, rtsp://, http://, synthetic:."),
]
Sinks = Annotated[
    list[str] | None,
    typer.Option(
        "--sink", help="video.mp4, picture.png, folder/, window:, web:8080 or null:; repeatable."
    ),
]
NoReconnect = Annotated[
    bool, typer.Option("--no-reconnect", help="End when a network stream breaks off.")
]
MaxFrames = Annotated[int | None, typer.Option(help="Stop after so many frames.", min=1)]
OneMoreSink = Annotated[  # text, not a path, which would lose the '/' that means a folder
    str | None, typer.Option("-o", "--output", help="One more --sink.", metavar="SINK")
]


@app.command("pose")
def pose(
    *,
    source: Source = "0",
    sink: Sinks = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Model file, folder or shipped name; repeatable.")
    ] = None,
    level: Level = None,
    finder: Annotated[str, typer.Option(help="Model that finds people.")] = "movenet_multipose",
    boxes: Annotated[
        Path | None, typer.Option(help="People boxes of any detector, COCO result format (JSON).")
    ] = None,
    single: Annotated[
        bool, typer.Option("--single", help="One person: crop from the previous pose, no finder.")
    ] = False,
    detect_every: Annotated[int, typer.Option(help="Look for people every n frames.", min=1)] = 8,
    json_out: Annotated[Path | None, typer.Option(help="Keypoints in COCO result format.")] = None,
    max_frames: MaxFrames = None,
    no_reconnect: NoReconnect = False,
    no_smooth: Annotated[
        bool, typer.Option("--no-smooth", help="Joints as they are, unfiltered.")
    ] = False,
    no_overlay: Annotated[
        bool, typer.Option("--no-overlay", help="Do not draw on the pictures.")
    ] = False,
    threads: Threads = None,
    backend: Backend = "auto",
    device: Device = "cpu",
    arithmetic: Arithmetic = "auto",
    no_cuda_graph: NoCudaGraph = False,
    output: OneMoreSink = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Draw the skeletons of people on a picture, a folder, a video, a camera or a stream.

    -o is short for one more --sink. Without any, files get a neighbour named NAME-pose, live
    sources a page on http://localhost:8080/. Ctrl-C ends the run and completes the output.
    Damaged pictures of a folder and the end of a cut video are named, and the exit code is then 1.

    \b
    Examples:
      prunus run pose --source street.mp4 -o street-pose.mp4 --json-out street.json
      prunus run pose --source rtsp://camera/stream --sink web:8080 --level L3 --detect-every 15
    """
    from prunus.apps.pose.app import PoseOptions, run_pose

    sinks = [*(sink or []), *([output] if output is not None else [])]
    summary = run_pose(
        PoseOptions(
            source=source,
            sinks=tuple(sinks),
            models=tuple(model or ()),
            level=level,
            finder=finder,
            boxes=boxes,
            single=single,
            detect_every=detect_every,
            json_out=json_out,
            max_frames=max_frames,
            reconnect=not no_reconnect,
            smooth=not no_smooth,
            overlay=not no_overlay,
            backend=backend,
            threads=threads,
            device=device,
            switches=switches(arithmetic, no_cuda_graph),
            quiet=quiet,
        )
    )
    _finish(summary, as_json=as_json, quiet=quiet)


@app.command("segmentation")
def segmentation(
    *,
    source: Source = "0",
    sink: Sinks = None,
    model: Annotated[
        str | None, typer.Option(help="Model file or shipped name; default: the shipped one.")
    ] = None,
    mode: Annotated[
        str, typer.Option(help="overlay, blur or replace (of the background).")
    ] = "overlay",
    background: Annotated[
        str, typer.Option(help="For replace: a picture, or a colour as '#rrggbb'.")
    ] = "#40a040",
    subject: Annotated[
        str | None, typer.Option(help="Class that stays in front; default: what the model names.")
    ] = None,
    opacity: Annotated[
        float, typer.Option(help="Strength of the colours of overlay.", min=0.0, max=1.0)
    ] = 0.5,
    masks: Annotated[
        str | None, typer.Option(help="Folder for one PNG of class numbers per frame.")
    ] = None,
    json_out: Annotated[
        Path | None, typer.Option(help="JSON list: share of each class in each frame.")
    ] = None,
    max_frames: MaxFrames = None,
    no_reconnect: NoReconnect = False,
    smooth: Annotated[
        float, typer.Option(help="Share of the past in a steady mask, 0 to 0.99.", min=0, max=0.99)
    ] = 0.6,
    no_smooth: Annotated[
        bool, typer.Option("--no-smooth", help="Masks as they are, unfiltered over time.")
    ] = False,
    no_numbers: Annotated[
        bool, typer.Option("--no-numbers", help="No times and no legend on the pictures.")
    ] = False,
    threads: Threads = None,
    backend: Backend = "auto",
    device: Device = "cpu",
    arithmetic: Arithmetic = "auto",
    no_cuda_graph: NoCudaGraph = False,
    output: OneMoreSink = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show what each pixel is, or blur or replace what is behind a person.

    -o is short for one more --sink. Without any, files get a neighbour named NAME-mask, live
    sources a page on http://localhost:8080/; with --masks or --json-out alone nothing is drawn.
    A folder's damaged pictures are left out and named, and the exit code is then 1.

    \b
    Examples:
      prunus run segmentation --source 0 --sink window: --mode replace --background beach.jpg
      prunus run segmentation --source pictures/ --masks masks/ --json-out shares.json
    """
    from prunus.apps.segmentation.app import SegmentationOptions, run_segmentation

    sinks = [*(sink or []), *([output] if output is not None else [])]
    summary = run_segmentation(
        SegmentationOptions(
            source=source,
            sinks=tuple(sinks),
            model=model,
            mode=mode,
            background=background,
            subject=subject,
            opacity=opacity,
            masks=masks,
            json_out=json_out,
            max_frames=max_frames,
            reconnect=not no_reconnect,
            smooth=0.0 if no_smooth else smooth,
            numbers=not no_numbers,
            backend=backend,
            threads=threads,
            device=device,
            switches=switches(arithmetic, no_cuda_graph),
            quiet=quiet,
        )
    )
    _finish(summary, as_json=as_json, quiet=quiet)


def _finish(summary: RunSummary | SegmentationSummary, *, as_json: bool, quiet: bool) -> None:
    """Print what a run did; raises typer.Exit where it was stopped or left something out."""
    if as_json:
        typer.echo(summary.to_json())
    elif not quiet:
        typer.echo(summary.to_text())
    if summary.interrupted:
        raise typer.Exit(130)
    if summary.warnings:  # what could be done is done, but not all of it
        if quiet and not as_json:
            typer.echo("\n".join(f"warning: {line}" for line in summary.warnings), err=True)
        raise typer.Exit(1)
