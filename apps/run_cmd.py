"""`prunus run`: live apps on cameras, files and streams."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunus.apps.options import (
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

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Run a model on a camera, a file or a stream, without PyTorch.

\b
Examples:
  prunus run pose --source 0 --sink web:8080
  prunus run pose --source street.mp4 --sink street-pose.mp4 --json-out street.json
""",
)


@app.command("pose")
def pose(
    *,
    source: Annotated[
        str,
        typer.Option(help="0, /dev/video0, picture, folder, video, rtsp://, http://, synthetic:."),
    ] = "0",
    sink: Annotated[
        list[str] | None,
        typer.Option(
            help="video.mp4, picture.png, folder/, window:, web:8080 or null:; repeatable."
        ),
    ] = None,
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
    max_frames: Annotated[
        int | None, typer.Option(help="Stop after so many frames.", min=1)
    ] = None,
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
    output: Annotated[  # text, not a path, which would lose the '/' that means a folder
        str | None, typer.Option("-o", "--output", help="One more --sink.", metavar="SINK")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Draw the skeletons of people on a picture, a folder, a video, a camera or a stream.

    -o is short for one more --sink. Without any, files get a neighbour named NAME-pose, live
    sources a page on http://localhost:8080/. Ctrl-C ends the run and completes the output.

    \b
    Examples:
      prunus run pose --source street.mp4 -o street-pose.mp4 --json-out street.json
      prunus run pose --source rtsp://camera/stream --sink web:8080 --level L3 --detect-every 15
    """
    from prunus.apps.pose import PoseOptions, run_pose

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
            smooth=not no_smooth,
            overlay=not no_overlay,
            backend=backend,
            threads=threads,
            device=device,
            switches=switches(arithmetic, no_cuda_graph),
            quiet=quiet,
        )
    )
    if as_json:
        typer.echo(summary.to_json())
    elif not quiet:
        typer.echo(summary.to_text())
    if summary.interrupted:
        raise typer.Exit(130)
