"""Options of `prunus run pose` and `prunus eval pose`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prunus.apps.batch.options import Compute, Work
from prunus.apps.common import options as shared
from prunus.apps.common.options import BackendChoice, Pace
from prunus.runtime.options import argument, group, option


@dataclass(frozen=True, slots=True, kw_only=True)
class PoseChoice:
    """Which network reads joints, whose, and how they are followed."""

    models: tuple[str, ...] = option(
        "Model file, folder or listed name, one per batch size, of one or of several levels or "
        "precisions; default: MoveNet Lightning.", default=(), flags=("--model",),
    )  # fmt: skip
    level: str | None = shared.level()
    finder: str = option("Model that finds people.", default="movenet_multipose")
    detect_every: int | None = option(
        "Look for people every n frames; default: each second, and when somebody is lost or "
        "something new moves.", default=None, minimum=1,
    )  # fmt: skip
    max_people: int | None = option("Follow at most so many people.", default=None, minimum=1)
    conf: float | None = option(
        "Least score of a person, 0 to 1; default: 0.15.", default=None, minimum=0.0, maximum=1.0
    )
    stride: int = shared.stride()
    smooth: bool = option("Joints as they are, unfiltered.", default=True)


@dataclass(frozen=True, slots=True)
class PoseOptions(PoseChoice):
    """What `run_pose` does.

    -o is short for one more --sink. Without any, files get a neighbour named NAME-pose, live
    sources a page on http://localhost:8080/. Several sources share the networks and the page, and
    each has files of its own, OUT-NAME; one that ends or breaks leaves the others alone. Ctrl-C
    ends the run and completes the output. Damaged pictures of a folder and a video that is cut off
    are named, and the exit code is then 1.

    \b
    Examples:
      prunus run pose --source street.mp4 -o street-pose.mp4 --json-out street.json
      prunus run pose --source rtsp://camera/stream --sink web:8080 --level L3 --budget 50ms
      prunus run pose --source rtsp://yard/1 --source rtsp://door/1 --json-out -
    """

    sources: tuple[str, ...] = shared.frames_in()
    sinks: tuple[str, ...] = shared.frames_out()
    boxes: Path | None = option(
        "People boxes of any detector, COCO result format (JSON).", default=None
    )
    single: bool = option("One person: crop from the previous pose, no finder.", default=False)
    json_out: Path | None = option(
        "Keypoints: COCO list .json, .jsonl, .csv, or - for JSON lines on standard output.",
        default=None,
    )
    max_frames: int | None = shared.max_frames()
    reconnect: bool = shared.reconnect()
    overlay: bool = option("Do not draw on the pictures.", default=True)
    show_tokens: bool = option(
        "Darken the patches that the network's cuts dropped, the earlier the darker; for files "
        "exported with --show-tokens.", default=False,
    )  # fmt: skip
    pace: Pace = group(Pace)
    compute: BackendChoice = group(BackendChoice)


@dataclass(frozen=True, slots=True)
class PoseBatchOptions(PoseChoice):
    """What `prunus batch pose` does.

    Each picture or video gets one Parquet file with a row per person and frame; what is there
    already is not done again. Files that cannot be read whole are set aside, with the reason, and
    the exit code is then 1.

    \b
    Examples:
      prunus batch pose videos/ "more/*.mp4" --out poses
      prunus batch pose @list.txt --out s3://bucket/poses --ray head:6379 --actors 16
    """

    coco: bool = option("Also write all people to OUT/coco.json, as COCO results.", default=False)
    work: Work = group(Work)
    compute: Compute = group(Compute)


@dataclass(frozen=True, slots=True)
class PoseEvalOptions:
    """What `evaluate_pose` does.

    \b
    Examples:
      prunus eval pose val2017 --annotations person_keypoints_val2017.json --model a.onnx
      prunus eval pose pictures --annotations labels.json --model movenet_lightning --json
    """

    folder: Path = argument("Folder of pictures.")
    annotations: Path = option("COCO keypoint annotations (JSON).")
    models: tuple[str, ...] = option(
        "Model file or listed name, one per batch size; default: MoveNet Lightning.",
        default=(), flags=("--model",),
    )  # fmt: skip
    level: str | None = shared.level()
    boxes: Path | None = option(
        "COCO detection results; default: the labelled boxes.", default=None
    )
    flip_test: bool = option("Average with the mirror image.", default=False)
    output: Path | None = shared.output("The single results, COCO result format.")
    compute: BackendChoice = group(BackendChoice)
