"""Options of `prunus run segmentation` and `prunus eval segmentation`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prunus.apps.batch.options import Compute, Work
from prunus.apps.common import options as shared
from prunus.apps.common.options import BackendChoice
from prunus.runtime.options import argument, group, option

Mode = Literal["overlay", "blur", "replace"]
_MODEL = "Model file or listed name; default: the one that ships."


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationChoice:
    """Which network segments, and how steady its masks are."""

    model: str | None = option(_MODEL, default=None)
    smooth: float = option(
        "Share of the past in a steady mask, 0 to 0.99.", default=0.6, minimum=0, maximum=0.99
    )
    steady: bool = option(
        "Masks as they are, unfiltered over time.", default=True, flags=("--no-smooth",)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationView(SegmentationChoice):
    """What is made of the masks."""

    mode: Mode = option("What is shown: the masks, or a changed background.", default="overlay")
    background: str | None = option(
        "For replace: a picture, or a colour as '#rrggbb'; default: #40a040.", default=None
    )
    subject: str | None = option(
        "Class that stays in front; default: what the model names.", default=None
    )
    opacity: float = option(
        "Strength of the colours of overlay.", default=0.5, minimum=0, maximum=1
    )


@dataclass(frozen=True, slots=True)
class SegmentationOptions(SegmentationView):
    """What `run_segmentation` does.

    -o is short for one more --sink. Without any, files get a neighbour named NAME-mask, live
    sources a page on http://localhost:8080/; with --masks or --json-out alone nothing is drawn.
    Several sources share the network and the page; each has files of its own, OUT-NAME.
    A folder's damaged pictures are left out and named, and the exit code is then 1.

    \b
    Examples:
      prunus run segmentation --source 0 --sink window: --mode replace --background beach.jpg
      prunus run segmentation --source pictures/ --masks masks/ --json-out shares.json
    """

    sources: tuple[str, ...] = shared.frames_in()
    sinks: tuple[str, ...] = shared.frames_out()
    masks: str | None = option("Folder for one PNG of class numbers per frame.", default=None)
    json_out: Path | None = option("JSON list: share of each class in each frame.", default=None)
    max_frames: int | None = shared.max_frames()
    reconnect: bool = shared.reconnect()
    numbers: bool = option("No times and no legend on the pictures.", default=True)
    compute: BackendChoice = group(BackendChoice)


@dataclass(frozen=True, slots=True)
class SegmentationBatchOptions(SegmentationChoice):
    """What `prunus batch segmentation` does.

    Each picture or video gets one Parquet file with a row per frame: the mask, and the share of
    each class; what is there already is not done again. Files that cannot be read whole are set
    aside, with the reason, and the exit code is then 1.

    \b
    Examples:
      prunus batch segmentation pictures/ --out masks
      prunus batch segmentation "s3://bucket/videos/*.mp4" --out s3://bucket/masks --no-masks
    """

    masks: bool = option("Shares of the classes alone.", default=True)
    work: Work = group(Work)
    compute: Compute = group(Compute)


@dataclass(frozen=True, slots=True)
class SegmentationEvalOptions:
    """What `evaluate_segmentation` does.

    The label of picture a/b.jpg is MASKS/a/b.png; its grey values or palette indices are class
    numbers. Pictures that cannot be judged are left out and named, and the exit code is then 1.

    \b
    Examples:
      prunus eval segmentation leftImg8bit/val --masks gtFine/val --layout cityscapes --model a.onnx
      prunus eval segmentation pictures --masks labels --positive 15 -o scores.json
    """

    folder: Path = argument("Folder of pictures.")
    masks: Path = option("Folder of label PNGs, arranged as the pictures.")
    layout: str = option(
        "plain, ade20k, cityscapes or cocostuff: names and numbers.", default="plain"
    )
    model: str | None = option(_MODEL, default=None)
    ignore: int = option("Label of pixels that are not judged.", default=255)
    positive: str | None = option(
        "Two-class models: labels that are the class.", default=None, metavar="11,12"
    )
    limit: int | None = option("At most so many pictures, spread evenly.", default=None, minimum=1)
    output: Path | None = shared.output("The scores, as JSON.")
    compute: BackendChoice = group(BackendChoice)
