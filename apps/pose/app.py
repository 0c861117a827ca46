"""The live pose app: source -> people -> joints -> drawing -> sinks, each in its own thread.

The finder looks for people every n frames; in between each person is followed from the previous
joints. Pictures are independent of each other, so there the finder runs on every one. Whatever ends
the run (the source, an error, Ctrl-C), the sinks are closed, which makes their files complete.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prunus.apps.common.model_files import find_model, no_export_found, pose_models
from prunus.apps.io.sinks.registry import Sink
from prunus.apps.io.sources.registry import Frame, Source, SourceInfo, open_source
from prunus.apps.live.loop import (
    Counts,
    Loop,
    Panel,
    announce,
    check_outputs,
    default_sink,
    open_sinks,
)
from prunus.apps.pose.coco_results import Boxes, ResultWriter, read_boxes
from prunus.apps.pose.overlay import Bones, draw_panel, draw_people
from prunus.runtime.errors import UsageError

if TYPE_CHECKING:
    from prunus.apps.pose.coco import ImageId
    from prunus.runtime.card.card import ModelCard
    from prunus.runtime.session.base import BackendOptions
    from prunus.runtime.tasks.pose.estimator import Pose, PoseEstimator


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
    reconnect: bool = True
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
        counts = Counts(
            self.frames, self.dropped, self.seconds, self.first_ms, self.stages, self.interrupted
        )
        return "\n".join(counts.lines(f", {self.people} people", self.outputs, self.warnings))


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
        source = open_source(options.source, reconnect=options.reconnect)
        stack.enter_context(closing(source))
        sinks = _open_sinks(options, source.info, stack)
        results = _open_results(options, stack)
        people, estimator = _open_models(options, source, stack)
        run = _Run(options, source=source, sinks=sinks, results=results, card=estimator.card)
        if not options.quiet:
            reasons = _reasons(options, estimator)
            announce(estimator.card, _description(estimator), reasons, source.info, sinks)
        counts = run.loop(people, Bones.of(estimator.postprocess), started)
        where = _description(estimator)
    # Only now are all files closed, and so complete.
    outputs = [s.name for s in sinks if s.name != "null:"]
    if options.json_out is not None:
        outputs.append(str(options.json_out))
    return RunSummary(
        model=run.card.name,
        backend=where,
        frames=counts.frames,
        dropped=counts.dropped,
        people=run.people,
        seconds=counts.seconds,
        first_ms=counts.first_ms,
        stages=counts.stages,
        outputs=tuple(outputs),
        warnings=tuple(dict.fromkeys(source.warnings)),
        interrupted=counts.interrupted,
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
    ) -> None:
        self.options, self.source, self.sinks, self.results = options, source, sinks, results
        self.card, self.people = card, 0
        self._panel = Panel(card, source.info)

    def loop(self, people: Callable[[_Work], _Work], bones: Bones, started: float) -> Counts:
        """Run the pipeline to its end and count."""
        from prunus.runtime.pipeline.pipeline import Stage

        def stages(dropped: Callable[[], int]) -> list[Stage]:
            both = [Stage("pose", people)]
            if self.options.overlay:
                both.append(Stage("draw", lambda work: self._draw(work, bones, dropped())))
            return both

        return Loop(
            "pose",
            self.source,
            _Work,
            stages,
            self._write,
            lambda work: f", {len(work.poses)} people",
            self.options.max_frames,
            self.options.quiet,
            started,
        ).run()

    def _draw(self, work: _Work, bones: Bones, dropped: int) -> _Work:
        draw_people(work.frame.image, work.poses, bones)
        # Finding people is rare, and its zeros in between would hide what it costs.
        draw_panel(work.frame.image, self._panel.lines(work.stage_ms, dropped, rare=("find",)))
        return work

    def _write(self, work: _Work) -> None:
        self.people += len(work.poses)
        if self.results is not None:
            self.results.write(work.frame, work.poses)
        for sink in self.sinks:
            sink.write(work.frame, work.frame.image)


def _check(options: PoseOptions) -> None:
    if options.single and options.boxes is not None:
        raise UsageError("Got --single and --boxes; expected one of them.", "Leave one out.")
    check_outputs(
        options.source,
        (*options.sinks, str(options.json_out or "")),
        () if options.boxes is None else (options.boxes,),
    )


def _open_sinks(options: PoseOptions, info: SourceInfo, stack: ExitStack) -> list[Sink]:
    uris = options.sinks
    if not uris:
        quiet_run = options.json_out is not None
        uris = ("null:",) if quiet_run else (default_sink(options.source, info, "pose"),)
    return open_sinks(uris, info, stack)


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
    options: PoseOptions, source: Source, stack: ExitStack
) -> tuple[Callable[[_Work], _Work], PoseEstimator]:
    """Open the models and return the step that fills in the poses of a frame."""
    from prunus.runtime.tasks.pose.estimator import PoseEstimator
    from prunus.runtime.tasks.pose.people import PeopleFinder

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
    steps = _Steps(options, source.info, estimator)
    if options.boxes is not None:
        steps.given = read_boxes(options.boxes, _picture_names(source))
    elif not options.single:
        path = find_model(options.finder)
        # An engine cannot hold the finder, so a back end for engines is for the pose network only.
        backend = (
            "auto" if options.backend == "tensorrt" and path.suffix == ".onnx" else options.backend
        )
        steps.finder = stack.enter_context(PeopleFinder.open(path, backend, options.threads))
    return steps, estimator


def _picture_names(source: Source) -> dict[ImageId, str]:
    """Return id -> file name of pictures; a video's frames have none."""
    ids: dict[str, int] = getattr(source, "ids", {})
    return {number: name for name, number in ids.items()}


class _Steps:
    """Find, follow and estimate, with clocks."""

    def __init__(self, options: PoseOptions, info: SourceInfo, estimator: PoseEstimator) -> None:
        from prunus.runtime.tasks.pose.smoothing import Smoothing
        from prunus.runtime.tasks.pose.tracking import PeopleTracker, SinglePerson, TrackerOptions

        smoothing = Smoothing() if options.smooth else None
        settings = TrackerOptions(every=options.detect_every, smoothing=smoothing)
        self.finder: Any = None
        self.given: dict[ImageId, Boxes] | None = None
        self._estimator, self._info = estimator, info
        self._tracker = PeopleTracker(settings, estimator.postprocess.sigmas)
        self._single = SinglePerson() if options.single else None
        self._alone = info.kind in ("picture", "folder")
        self._find_ms = 0.0
        self._start_ns = 0

    def __call__(self, work: _Work) -> _Work:
        """Fill in the poses of one frame."""
        self._find_ms = 0.0
        self._estimator.stage_ms.clear()
        work.poses = self._poses(work.frame)
        work.stage_ms = {"find": self._find_ms, **self._estimator.stage_ms}
        return work

    def _poses(self, frame: Frame) -> list[Pose]:
        image = frame.image
        if self.given is not None:
            corners, _ = self.given.get(frame.image_id, (np.zeros((0, 4)), None))
            poses = self._estimator(image, corners)
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
