"""`make demo`: the whole chain on the bundled clip, from the PyTorch checkpoint to skeletons.

Exports EViTPose-Tiny dense (L0) and pruned (L2), checks both against PyTorch on real crops, runs
both on the clip, prints the speed-up and writes the annotated video with a still; then blurs what
is behind a person with the shipped segmentation network, and hears one of two people by the lips
with the shipped separator.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunus.apps.common.media import PEDESTRIANS, bundled
from prunus.apps.common.options import BackendChoice
from prunus.apps.common.tables import plain_table
from prunus.apps.demo.voices import hear_each
from prunus.apps.pose.app import RunSummary, run_pose
from prunus.apps.pose.options import PoseOptions
from prunus.apps.segmentation.app import run_segmentation
from prunus.apps.segmentation.options import SegmentationOptions
from prunus.runtime.command import end_process
from prunus.runtime.errors import PrunusError, SourceError
from prunus.runtime.pictures.opencv import load_cv2
from prunus.runtime.progress import ConsoleProgress

if TYPE_CHECKING:
    from prunus.runtime.session.base import BackendOptions, Session

PORTRAIT = "synthetic:480x480@0*{}"  # a camera moving over the bundled portrait
_PORTRAIT_FRAMES = 75
_LEVELS = ("L0", "L2")
_TURNS, _RUNS = 4, 12  # A B A B A B A B, so that a busy moment of the machine hits both alike


@dataclass(frozen=True, slots=True)
class Timing:
    """Latency of one model on one person, in milliseconds."""

    p50_ms: float
    p90_ms: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m prunus.apps.demo.demo", description=__doc__)
    parser.add_argument("--output", "-o", type=Path, default=Path("demo"), help="folder")
    parser.add_argument("--source", default=None, help="video, not the bundled clip")
    parser.add_argument("--checkpoint", default=None, help="weights, default: the shipped ones")
    parser.add_argument("--frames", type=int, default=None, help="stop after so many frames")
    parser.add_argument("--backend", default="auto", help="auto, onnxruntime or openvino")
    parser.add_argument("--debug", action="store_true", help="show the trace of an error")
    options = parser.parse_args(arguments)
    try:
        options.source = options.source or str(bundled(PEDESTRIANS))
        run(options)
    except KeyboardInterrupt:
        print("\nStopped with Ctrl-C; files in the folder are complete.", file=sys.stderr)
        return 130
    except PrunusError as error:
        if options.debug:
            raise
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


def run(options: argparse.Namespace) -> None:
    """Do all steps; raises PrunusError when one fails."""
    folder: Path = options.output
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    _step(1, "export EViTPose-Tiny from its PyTorch checkpoint: dense (L0) and pruned (L2)")
    models = {level: _export(level, folder, options.checkpoint) for level in _LEVELS}
    _step(2, "check both against PyTorch on real crops")
    for level, path in models.items():
        _check(level, path, options.checkpoint)
    _step(3, f"run both on {Path(options.source).name}, without PyTorch")
    video = folder / f"{Path(options.source).stem}-pose.mp4"
    dense = _run(options, models["L0"], ("null:",))
    pruned = _run(options, models["L2"], (str(video),))
    timings = time_in_turns({n: str(p) for n, p in models.items()}, options.backend)
    _step(4, "keep a person, blur what is behind: MediaPipe's selfie segmentation")
    portrait = _blur(options, folder)
    _step(5, "two people speak at once: hear each by the lips")
    heard = hear_each(folder, options.backend, options.frames)
    _step(6, "result")
    still = video.with_suffix(".png")
    write_still(video, still)
    print(_table(models, timings, {"L0": dense, "L2": pruned}))
    print(f"\n  video  {video}\n  still  {still}\n  video  {portrait}")
    for path in heard:
        print(f"  {'video' if path.suffix == '.mp4' else 'sound'}  {path}")
    print(f"  whole demo {time.perf_counter() - begin:.0f} s")


def _step(number: int, text: str) -> None:
    print(f"\n[{number}/6] {text}", flush=True)


def _export(level: str, folder: Path, checkpoint: str | None) -> Path:
    from prunus.export.evitpose import export_evitpose

    path = folder / f"evitpose-tiny-{level}.onnx"
    with ConsoleProgress(f"  export {level}") as progress:
        return export_evitpose(
            "tiny", level=level, checkpoint=checkpoint, output=path, progress=progress
        )


def _check(level: str, path: Path, checkpoint: str | None) -> None:
    from prunus.export.verify.check import check_artifact

    weights = None if checkpoint in (None, "random") else checkpoint
    with ConsoleProgress(f"  check {level}") as progress:
        report = check_artifact(path, checkpoint=weights, progress=progress)
    for comparison in report.comparisons:
        effect = ", ".join(f"{name} {value:.2g}" for name, value in comparison.effect.items())
        verdict = "ok" if comparison.passed else "FAILED"
        print(
            f"  {level}: {comparison.suspect} against {comparison.reference}: {effect}: {verdict}"
        )
    report.raise_if_failed()


def _run(options: argparse.Namespace, model: Path, sinks: tuple[str, ...]) -> RunSummary:
    summary = run_pose(
        PoseOptions(
            sources=(options.source,),
            sinks=sinks,
            models=(str(model),),
            max_frames=options.frames,
            compute=BackendChoice(options.backend, arithmetic="f32"),
        )
    )
    if summary.interrupted:
        raise KeyboardInterrupt
    return summary


def _blur(options: argparse.Namespace, folder: Path) -> Path:
    """Write the portrait's video with a blurred background; return its path."""
    video = folder / "portrait-blur.mp4"
    frames = min(options.frames or _PORTRAIT_FRAMES, _PORTRAIT_FRAMES)
    summary = run_segmentation(
        SegmentationOptions(
            sources=(PORTRAIT.format(frames),), sinks=(str(video),), mode="blur",
            compute=BackendChoice(options.backend),
        )
    )  # fmt: skip
    if summary.interrupted:
        raise KeyboardInterrupt
    print(f"  {summary.to_text().splitlines()[0]}")
    return video


def _same_arithmetic() -> BackendOptions:
    """Return switches that keep back ends at float32: only some levels may use bfloat16."""
    from prunus.runtime.session.base import BackendOptions

    return BackendOptions(inference_precision="f32")


def time_in_turns(models: dict[str, str], backend: str) -> dict[str, Timing]:
    """Time one run of each model (name -> path) in turns within this process.

    The input is one real crop: the middle of the clip's first frame.
    """
    from prunus import runtime

    same = _same_arithmetic()
    sessions = {name: runtime.open(path, backend, options=same) for name, path in models.items()}
    samples: dict[str, list[float]] = {name: [] for name in models}
    try:
        for turn in range(_TURNS + 1):
            for name, session in sessions.items():
                times = _time(session, _crop(session), _RUNS)
                samples[name] += times if turn else []  # the first turn warms up
    finally:
        for session in sessions.values():
            session.close()
    return {name: _timing(values) for name, values in samples.items()}


def _crop(session: Session) -> Any:
    import numpy as np

    capture = load_cv2().VideoCapture(str(bundled(PEDESTRIANS)))
    frame = capture.read()[1]
    capture.release()
    batch, height, width, _ = session.card.inputs[0].shape
    crop = frame[150 : 150 + height, 250 : 250 + width, ::-1]
    return np.ascontiguousarray(np.broadcast_to(crop, (batch, *crop.shape)))


def _time(session: Session, crop: Any, runs: int) -> list[float]:
    times = []
    for _ in range(runs):
        start = time.perf_counter_ns()
        session.run({session.card.inputs[0].name: crop})
        times.append((time.perf_counter_ns() - start) / 1e6)
    return times


def _timing(samples: list[float]) -> Timing:
    return Timing(statistics.median(samples), statistics.quantiles(samples, n=10)[-1])


def write_still(video: Path, still: Path) -> None:
    """Write the middle frame of a video as a picture.

    Raises:
        SourceError: the video cannot be read.
    """
    from prunus.apps.io.sinks.pictures import write_picture

    cv2 = load_cv2()
    capture = cv2.VideoCapture(str(video))
    capture.set(cv2.CAP_PROP_POS_FRAMES, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) // 2)
    done, frame = capture.read()
    capture.release()
    if not done:
        raise SourceError(f"{video} cannot be read again.", "Run the demo again.")
    write_picture(still, frame)


def _table(models: dict[str, Path], timings: dict[str, Timing], runs: dict[str, RunSummary]) -> str:
    from prunus.runtime.card.artifact import read_card

    rows = []
    base = timings["L0"].p50_ms
    dense_macs = 0
    for level, path in models.items():
        plan = read_card(path).tokens
        macs = plan.macs if plan else 0
        dense_macs = dense_macs or macs
        stage = {name: p50 for name, p50, _ in runs[level].stages}
        rows.append(
            [
                level,
                " > ".join(str(n) for n in (plan.tokens, *plan.keep)) if plan else "",
                f"{macs / 1e9:.2f}",
                f"{dense_macs / macs:.2f}x" if macs else "-",
                f"{timings[level].p50_ms:.1f}",
                f"{timings[level].p90_ms:.1f}",
                f"{base / timings[level].p50_ms:.2f}x",
                f"{stage['pose']:.0f}",
                f"{runs[level].frames / runs[level].seconds:.1f}",
            ]
        )
    columns = ("level", "tokens", "GMACs", "fewer", "p50 ms", "p90 ms", "faster", "frame ms", "fps")
    note = f"one person on {runs['L0'].backend}; frame ms and fps: the whole clip, all people"
    return plain_table(note, columns, rows)


if __name__ == "__main__":
    end_process(main)
