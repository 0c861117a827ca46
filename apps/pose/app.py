"""The live pose app: source -> people -> joints -> drawing -> sinks, each in its own thread.

The finder looks for people every n frames; in between each person is followed from the previous
joints. Pictures are independent of each other, so there the finder runs on every one. Whatever ends
the run (the source, an error, Ctrl-C), the sinks are closed, which makes their files complete.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from prunus.apps.common.model_files import find_model, pose_models, why_default
from prunus.apps.io.sinks.registry import Sink
from prunus.apps.io.sources.registry import Frame, Source, SourceInfo, open_source
from prunus.apps.live.loop import (
    Counts,
    Panel,
    announce,
    check_outputs,
    frames_loop,
    open_sinks,
    written,
)
from prunus.apps.live.summary import FrameSummary
from prunus.apps.pose.coco_results import Boxes, ResultWriter, read_boxes
from prunus.apps.pose.options import PoseEvalOptions, PoseOptions
from prunus.apps.pose.overlay import Bones, draw_panel, draw_people
from prunus.runtime.errors import UsageError

if TYPE_CHECKING:
    from prunus.apps.common.scores import Scores
    from prunus.apps.pose.coco import ImageId
    from prunus.runtime.card.card import ModelCard
    from prunus.runtime.progress import Progress
    from prunus.runtime.tasks.pose.estimator import Pose, PoseEstimator


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary(FrameSummary):
    """What a run did.

    Attributes:
        people: People over all frames.
    """

    people: int

    def found(self) -> str:
        """Return how many people were seen."""
        return f", {self.people} people"


@dataclass(slots=True)
class _Work:
    """One frame on its way through the stages."""

    frame: Frame
    poses: list[Pose] = field(default_factory=list)
    stage_ms: dict[str, float] = field(default_factory=dict)


def run_pose(options: PoseOptions, *, quiet: bool = False) -> RunSummary:
    """Run until the source ends, the user stops, or `max_frames` are done.

    Args:
        options: What to run.
        quiet: No progress and no notes.

    Raises:
        PrunusError: source, sink, model or options cannot be used. What was written is complete.
    """
    started = time.perf_counter()
    _check(options)
    with ExitStack() as stack:
        source = open_source(options.source, reconnect=options.reconnect)
        stack.enter_context(closing(source))
        sinks = open_sinks(
            options.sinks, options.source, source.info, stack, ending="pose",
            files=(options.json_out,),
        )  # fmt: skip
        results = _open_results(options, stack)
        people, estimator = _open_models(options, source, stack)
        session = next(iter(estimator.sessions.values()))
        run = _Run(options, source=source, sinks=sinks, results=results, card=estimator.card)
        if not quiet:
            shipped = () if options.models or options.level else (f"model: {why_default()}",)
            names = [sink.name for sink in sinks]
            announce(session, source.info, names, options.compute, shipped)
        counts = run.loop(people, Bones.of(estimator.postprocess), started, quiet)
    # Only now are all files closed, and so complete.
    return RunSummary(
        model=run.card.name,
        backend=session.description,
        people=run.people,
        outputs=written(sinks, options.json_out),
        warnings=tuple(dict.fromkeys(source.warnings)),
        **dataclasses.asdict(counts),
    )


def evaluate_pose(options: PoseEvalOptions, progress: Progress) -> Scores:
    """Score a pose model on labelled pictures; raises PrunusError."""
    from prunus.apps.pose.evaluate import evaluate_pose_folder
    from prunus.runtime.tasks.pose.estimator import PoseEstimator

    files = pose_models(options.models, options.level)
    with PoseEstimator.open(files, **options.compute.keywords()) as estimator:
        result = evaluate_pose_folder(
            estimator, options.folder, options.annotations, options.boxes,
            flip_test=options.flip_test, progress=progress,
        )  # fmt: skip
    if options.output is not None:
        result.save_results(options.output)
    return result


class _Run:
    """The loop of one run and what it counts."""

    def __init__(
        self,
        options: PoseOptions,
        *,
        source: Source[Frame],
        sinks: list[Sink[Frame]],
        results: ResultWriter | None,
        card: ModelCard,
    ) -> None:
        self.options, self.source, self.sinks, self.results = options, source, sinks, results
        self.card, self.people = card, 0
        self._panel = Panel(card, source.info)

    def loop(
        self, people: Callable[[_Work], _Work], bones: Bones, started: float, quiet: bool
    ) -> Counts:
        """Run the pipeline to its end and count."""
        from prunus.runtime.pipeline.pipeline import Stage

        def stages(dropped: Callable[[], int]) -> list[Stage]:
            both = [Stage("pose", people)]
            if self.options.overlay:
                both.append(Stage("draw", lambda work: self._draw(work, bones, dropped())))
            return both

        return frames_loop(
            self.source,
            _Work,
            title="pose",
            stages=stages,
            write=self._write,
            note=lambda work, rate: f"{rate:.1f} frames/s, {len(work.poses)} people",
            limit=self.options.max_frames,
            quiet=quiet,
            started=started,
        ).run()

    def _draw(self, work: _Work, bones: Bones, dropped: int) -> _Work:
        draw_people(work.frame.image, work.poses, bones)
        # Finding people is rare, and its zeros in between would hide what it costs.
        draw_panel(work.frame.image, self._panel.lines(work.stage_ms, dropped, rare=("find",)))
        return work

    def _write(self, work: _Work, _: object) -> None:
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


def _open_results(options: PoseOptions, stack: ExitStack) -> ResultWriter | None:
    if options.json_out is None:
        return None
    return stack.enter_context(closing(ResultWriter(options.json_out)))


def _open_models(
    options: PoseOptions, source: Source[Frame], stack: ExitStack
) -> tuple[Callable[[_Work], _Work], PoseEstimator]:
    """Open the models and return the step that fills in the poses of a frame."""
    from prunus.runtime.tasks.pose.estimator import PoseEstimator
    from prunus.runtime.tasks.pose.people import PeopleFinder

    files = pose_models(options.models, options.level)
    estimator = stack.enter_context(PoseEstimator.open(files, **options.compute.keywords()))
    steps = _Steps(options, source.info, estimator)
    if options.boxes is not None:
        steps.given = read_boxes(options.boxes, _picture_names(source))
    elif not options.single:
        path = find_model(options.finder)
        # An engine cannot hold the finder, so a back end for engines is for the pose network only.
        compute = options.compute
        engines = compute.backend == "tensorrt" and path.suffix == ".onnx"
        backend = "auto" if engines else compute.backend
        steps.finder = stack.enter_context(PeopleFinder.open(path, backend, compute.threads))
    return steps, estimator


def _picture_names(source: Source[Frame]) -> dict[ImageId, str]:
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
        self._estimator = estimator
        self._tracker = PeopleTracker(settings, estimator.postprocess.sigmas)
        self._single = SinglePerson() if options.single else None
        self._alone = info.kind in ("picture", "folder")
        self._find_ms = 0.0

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
            return poses if self._alone else self._tracker.associate(poses, frame.seconds or 0.0)
        if self._single is not None:
            if self._alone:  # the person of another picture says nothing about this one
                self._single = type(self._single)()
            return self._single.update(image, self._estimator)
        if self._alone:
            found = self._find(image)
            boxes = [p.box for p in found]
            return self._estimator(image, np.array(boxes, np.float64).reshape(-1, 4))
        return self._tracker.update(image, self._find, self._estimator, frame.seconds or 0.0)

    def _find(self, image: Any) -> list[Pose]:
        start = time.perf_counter()
        found: list[Pose] = self.finder(image)
        self._find_ms += (time.perf_counter() - start) * 1000
        return found
