"""The live pose app: source -> people -> joints -> drawing -> sinks, each in its own thread.

The finder looks for people every n frames; in between each person is followed from the previous
joints. Pictures are independent of each other, so there the finder runs on every one. Whatever ends
the run (the source, an error, Ctrl-C), the sinks are closed, which makes their files complete.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prunus.apps.coco_results import ResultWriter, image_id, read_boxes
from prunus.apps.model_files import find_model, no_export_found, pose_models
from prunus.apps.overlay import Bones, draw_panel, draw_people
from prunus.apps.sinks import Sink, Stop, open_sink
from prunus.apps.sources import PICTURES, Frame, Source, SourceInfo, open_source
from prunus.runtime.errors import UsageError
from prunus.runtime.progress import ConsoleProgress, Silent

if TYPE_CHECKING:
    from prunus.runtime.card import ModelCard
    from prunus.runtime.pipeline import Pipeline
    from prunus.runtime.session import BackendOptions
    from prunus.runtime.tasks.pose import Pose, PoseEstimator

_STEADY = 0.9  # share of the old value in the numbers on screen, so that they can be read
_TIMES_ONLY_LIVE = ("picture", "folder")


@dataclass(frozen=True, slots=True)
class PoseOptions:
    """What to run; see ``prunus run pose --help`` for each."""

    source: str
    sinks: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    level: str | None = None
    finder: str = "movenet_multipose"
    boxes: Path | None = None
    single: bool = False
    detect_every: int = 8
    json_out: Path | None = None
    max_frames: int | None = None
    smooth: bool = True
    overlay: bool = True
    backend: str = "auto"
    threads: int | None = None
    device: str = "cpu"
    switches: BackendOptions | None = None
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a run did.

    Attributes:
        model: Short name from the card.
        backend: One line about the session.
        frames: Frames that came out.
        dropped: Frames that a newer one replaced (live sources).
        people: People over all frames.
        seconds: From the first frame in to the last frame out.
        first_ms: From the start of `run_pose` to the first frame out.
        stages: Name, p50 and p90 in milliseconds, of each stage.
        outputs: What was written.
        warnings: What went wrong without stopping the run.
        interrupted: Whether Ctrl-C ended it.
    """

    model: str
    backend: str
    frames: int
    dropped: int
    people: int
    seconds: float
    first_ms: float
    stages: tuple[tuple[str, float, float], ...]
    outputs: tuple[str, ...]
    warnings: tuple[str, ...]
    interrupted: bool

    def to_json(self) -> str:
        """Return sorted, indented JSON."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, indent=1)

    def to_text(self) -> str:
        """Return a few lines for people."""
        rate = self.frames / self.seconds if self.seconds else 0.0
        times = "  ".join(f"{name} {p50:.1f}/{p90:.1f}" for name, p50, p90 in self.stages)
        lines = [
            f"{self.frames} frames, {self.people} people, {rate:.1f} frames/s, "
            f"{self.dropped} dropped, first frame after {self.first_ms / 1000:.2f} s",
            f"p50/p90 ms: {times}",
            *(f"wrote {name}" for name in self.outputs),
            *(f"warning: {line}" for line in self.warnings),
        ]
        if self.interrupted:
            lines.append("stopped with Ctrl-C; everything above is complete")
        return "\n".join(lines)


@dataclass(slots=True)
class _Work:
    """One frame on its way through the stages."""

    frame: Frame
    poses: list[Pose] = field(default_factory=list)
    stage_ms: dict[str, float] = field(default_factory=dict)


def run_pose(options: PoseOptions) -> RunSummary:
    """Run until the source ends, the user stops, or `max_frames` are done.

    Raises:
        PrunusError: source, sink, model or options cannot be used. What was written is complete.
    """
    started = time.perf_counter()
    _check(options)
    with ExitStack() as stack:
        source = stack.enter_context(closing(open_source(options.source)))
        sinks = _open_sinks(options, source.info, stack)
        results = _open_results(options, stack)
        people, estimator = _open_models(options, source.info, stack)
        run = _Run(
            options,
            source=source,
            sinks=sinks,
            results=results,
            card=estimator.card,
            started=started,
        )
        run.announce(_description(estimator), _reasons(options, estimator))
        counts = run.loop(people, Bones.of(estimator.postprocess), _description(estimator))
    # Only now are all files closed, and so complete.
    outputs = [s.name for s in sinks if s.name != "null:"]
    if options.json_out is not None:
        outputs.append(str(options.json_out))
    return dataclasses.replace(
        counts, outputs=tuple(outputs), warnings=tuple(dict.fromkeys(source.warnings))
    )


class _Run:
    """The loop of one run and what it counts."""

    def __init__(
        self,
        options: PoseOptions,
        *,
        source: Source,
        sinks: list[Sink],
        results: ResultWriter | None,
        card: ModelCard,
        started: float,
    ) -> None:
        self.options, self.source, self.sinks, self.results = options, source, sinks, results
        self.card, self.started = card, started
        self._shown: dict[str, float] = {}
        self._last_drawn = 0.0

    def announce(self, description: str, reasons: Sequence[str]) -> None:
        """Say what runs where and why, before the first frame."""
        if self.options.quiet:
            return
        info = self.source.info
        print(f"{self.card.name} on {description}", file=sys.stderr)
        for line in reasons:
            print(f"  {line}", file=sys.stderr)
        print(f"{info.kind} {info.width}x{info.height} -> {', '.join(s.name for s in self.sinks)}",
              file=sys.stderr)  # fmt: skip

    def loop(self, people: Callable[[_Work], _Work], bones: Bones, where: str) -> RunSummary:
        """Run the pipeline to its end and count."""
        from prunus.runtime.pipeline import Pipeline, Stage

        frames = seen = 0
        first_ms, interrupted, begin = 0.0, False, time.perf_counter()
        stages = [Stage("pose", people)]
        pipeline: Pipeline
        if self.options.overlay:
            stages.append(Stage("draw", lambda work: self._draw(work, bones, pipeline)))
        pipeline = Pipeline(self._input(), stages, live=self.source.info.live)
        with self._progress() as progress, pipeline:
            try:
                for item in pipeline:
                    work: _Work = item.payload
                    self._write(work)
                    frames, seen = frames + 1, seen + len(work.poses)
                    first_ms = first_ms or (time.perf_counter() - self.started) * 1000
                    progress.update(frames, self._total(), self._note(frames, begin, work))
                    if frames == self.options.max_frames:
                        break
            except Stop:
                pass
            except KeyboardInterrupt:
                interrupted = True
        return RunSummary(
            model=self.card.name,
            backend=where,
            frames=frames,
            dropped=pipeline.dropped,
            people=seen,
            seconds=time.perf_counter() - begin,
            first_ms=first_ms,
            stages=tuple((t.name, t.p50_ms, t.p90_ms) for t in pipeline.times()),
            outputs=(),
            warnings=(),
            interrupted=interrupted,
        )

    def _input(self) -> Iterator[_Work]:
        limit = None if self.source.info.live else self.options.max_frames
        return (_Work(frame) for frame in itertools.islice(self.source, limit))

    def _total(self) -> int:
        known = [n for n in (self.source.info.frames, self.options.max_frames) if n]
        return min(known, default=0)

    def _progress(self) -> Any:
        import contextlib

        if self.options.quiet:
            return contextlib.nullcontext(Silent())
        return ConsoleProgress("pose")

    def _note(self, frames: int, begin: float, work: _Work) -> str:
        rate = frames / max(time.perf_counter() - begin, 1e-6)
        return f"{rate:.1f} frames/s, {len(work.poses)} people"

    def _draw(self, work: _Work, bones: Bones, pipeline: Pipeline) -> _Work:
        draw_people(work.frame.image, work.poses, bones)
        draw_panel(work.frame.image, self._panel(work, pipeline.dropped))
        return work

    def _panel(self, work: _Work, dropped: int) -> list[str]:
        now = time.perf_counter()
        if self._last_drawn:
            self._steady("interval", (now - self._last_drawn) * 1000)
        self._last_drawn = now
        for name, value in work.stage_ms.items():
            # Finding people is rare, and its zeros in between would hide what it costs.
            if value or name != "find":
                self._steady(name, value)
        shown = self._shown
        times = "  ".join(f"{name} {shown[name]:.1f}" for name in work.stage_ms if name in shown)
        lines = [f"{self.card.model} {self.card.variant}  {self.card.precision.precision}"]
        if self.card.tokens is not None:
            plan = self.card.tokens
            counts = " > ".join(str(n) for n in (plan.tokens, *plan.keep))
            lines[0] = f"{self.card.model} {self.card.variant} {plan.level}"
            lines.append(f"K {counts}  {self.card.precision.precision}")
        lines.append(f"{times} ms")
        if self.source.info.kind not in _TIMES_ONLY_LIVE and "interval" in shown:
            rate = 1000 / max(shown["interval"], 1e-3)
            lines.append(f"{rate:.1f} fps  {dropped} dropped")
        return lines

    def _steady(self, name: str, value: float) -> None:
        old = self._shown.get(name, value)
        self._shown[name] = _STEADY * old + (1 - _STEADY) * value

    def _write(self, work: _Work) -> None:
        if self.results is not None:
            self.results.write(work.frame, work.poses)
        for sink in self.sinks:
            sink.write(work.frame, work.frame.image)


def _check(options: PoseOptions) -> None:
    if options.single and options.boxes is not None:
        raise UsageError("Got --single and --boxes; expected one of them.", "Leave one out.")
    for uri in (*options.sinks, str(options.json_out or "")):
        if uri and (_overwrites(options.source, uri) or _same(options.boxes, uri)):
            raise UsageError(f"{uri} is both source and output.", "Choose another path with -o.")


def _overwrites(source: str, uri: str) -> bool:
    """Tell whether writing to `uri` would replace the source, or a picture of a source folder."""
    here, there = Path(source), Path(uri)
    if _same(here, there):
        return True
    if here.is_dir():
        written = there.suffix.lower() in PICTURES and there.exists()
        return written and _same(here, there.parent)
    # A folder gets each picture under the name that it had in the source.
    return here.suffix.lower() in PICTURES and _same(here, there / here.name)


def _same(one: Path | None, other: Path | str) -> bool:
    return one is not None and one.exists() and Path(other).exists() and one.samefile(other)


def default_sink(uri: str, info: SourceInfo) -> str:
    """Return where frames go when nobody said so: beside us for files, a web page for the rest."""
    path = Path(uri)
    if info.kind == "folder":
        return f"{path.resolve().name}-pose/"
    if info.kind == "picture":
        return f"{path.stem}-pose{path.suffix}"
    return f"{path.stem}-pose.mp4" if info.kind == "video" else "web:8080"


def _open_sinks(options: PoseOptions, info: SourceInfo, stack: ExitStack) -> list[Sink]:
    uris = options.sinks
    if not uris:
        quiet_run = options.json_out is not None
        uris = ("null:",) if quiet_run else (default_sink(options.source, info),)
    return [stack.enter_context(closing(open_sink(uri, info))) for uri in uris]


def _open_results(options: PoseOptions, stack: ExitStack) -> ResultWriter | None:
    if options.json_out is None:
        return None
    return stack.enter_context(closing(ResultWriter(options.json_out)))


def _description(estimator: PoseEstimator) -> str:
    return next(iter(estimator.sessions.values())).description


def _reasons(options: PoseOptions, estimator: PoseEstimator) -> list[str]:
    """Return why `auto` took what it took: the model where none was named, and the back end."""
    lines = []
    if not options.models and estimator.card.model == "movenet":
        lines.append(f"model: the shipped one, as {no_export_found(options.level)}")
    if options.backend == "auto":
        lines += next(iter(estimator.sessions.values())).choice
    return lines


def _open_models(
    options: PoseOptions, info: SourceInfo, stack: ExitStack
) -> tuple[Callable[[_Work], _Work], PoseEstimator]:
    """Open the models and return the step that fills in the poses of a frame."""
    from prunus.runtime.tasks.people import PeopleFinder
    from prunus.runtime.tasks.pose import PoseEstimator

    files = pose_models(options.models, options.level)
    estimator = stack.enter_context(
        PoseEstimator.open(
            files,
            options.backend,
            options.threads,
            device=options.device,
            options=options.switches,
        )
    )
    steps = _Steps(options, info, estimator)
    if options.boxes is not None:
        steps.given = read_boxes(options.boxes)
    elif not options.single:
        path = find_model(options.finder)
        # An engine cannot hold the finder, so a back end for engines is for the pose network only.
        backend = (
            "auto" if options.backend == "tensorrt" and path.suffix == ".onnx" else options.backend
        )
        steps.finder = stack.enter_context(PeopleFinder.open(path, backend, options.threads))
    return steps, estimator


class _Steps:
    """Find, follow and estimate, with clocks."""

    def __init__(self, options: PoseOptions, info: SourceInfo, estimator: PoseEstimator) -> None:
        from prunus.runtime.tasks.smoothing import Smoothing
        from prunus.runtime.tasks.tracking import PeopleTracker, SinglePerson, TrackerOptions

        smoothing = Smoothing() if options.smooth else None
        settings = TrackerOptions(every=options.detect_every, smoothing=smoothing)
        self.finder: Any = None
        self.given: dict[int, list[tuple[float, float, float, float, float]]] | None = None
        self._estimator, self._info = estimator, info
        self._tracker = PeopleTracker(settings, estimator.postprocess.sigmas)
        self._single = SinglePerson() if options.single else None
        self._alone = info.kind in ("picture", "folder")
        self._find_ms = 0.0
        self._start_ns = 0

    def __call__(self, work: _Work) -> _Work:
        """Fill in the poses of one frame."""
        self._find_ms = 0.0
        self._estimator.stage_ms = {}
        work.poses = self._poses(work.frame)
        work.stage_ms = {"find": self._find_ms, **self._estimator.stage_ms}
        return work

    def _poses(self, frame: Frame) -> list[Pose]:
        image = frame.image
        if self.given is not None:
            boxes = [b[:4] for b in self.given.get(image_id(frame), [])]
            poses = self._estimator(image, np.array(boxes, np.float64).reshape(-1, 4))
            return poses if self._alone else self._tracker.associate(poses, self._seconds(frame))
        if self._single is not None:
            if self._alone:  # the person of another picture says nothing about this one
                self._single = type(self._single)()
            return self._single.update(image, self._estimator)
        if self._alone:
            found = self._find(image)
            boxes = [p.box for p in found]
            return self._estimator(image, np.array(boxes, np.float64).reshape(-1, 4))
        return self._tracker.update(image, self._find, self._estimator, self._seconds(frame))

    def _find(self, image: Any) -> list[Pose]:
        start = time.perf_counter()
        found: list[Pose] = self.finder(image)
        self._find_ms += (time.perf_counter() - start) * 1000
        return found

    def _seconds(self, frame: Frame) -> float:
        """Return the time of a frame: of its capture when live, else by its number."""
        if self._info.live:
            self._start_ns = self._start_ns or frame.captured_ns
            return (frame.captured_ns - self._start_ns) / 1e9
        return frame.index / (self._info.fps or 1.0)
