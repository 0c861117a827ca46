"""From a frame to its people: find, follow, estimate; alone or under a governor."""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from prunus.apps.common.model_files import find_model, pose_models
from prunus.apps.io.frames import Frame, Image, Source, SourceInfo
from prunus.apps.live.controls import Controls
from prunus.apps.live.governing import Governed, ladder
from prunus.apps.pose.coco_results import Boxes, read_boxes
from prunus.apps.pose.options import PoseOptions
from prunus.runtime.card.artifact import read_card
from prunus.runtime.card.tokens import told_blocks
from prunus.runtime.errors import ArtifactError, UsageError
from prunus.runtime.host import usable_cpus

if TYPE_CHECKING:
    from prunus.apps.pose.coco import ImageId
    from prunus.runtime.card.card import ModelCard
    from prunus.runtime.tasks.pose.estimator import Pose, PoseEstimator
    from prunus.runtime.tasks.pose.tracking.background import BackgroundFinder

_LOW = {"fp32": 1.0, "fp16": 1.0, "int8": 0.6}  # first guess of what a number format saves
_PICTURES = ("picture", "folder")
_LATE_MS = 300.0  # in which people walk out of the boxes in which they were found


@dataclass(slots=True)
class Work:
    """One frame on its way through the stages.

    Attributes:
        frame: The frame.
        poses: Its people.
        stage_ms: Milliseconds by part.
        card: Of the network that read the joints.
        notes: Lines for the screen.
        clean: The frame's picture before it was drawn on, where somebody wants it.
    """

    frame: Frame
    poses: list[Pose] = field(default_factory=list)
    stage_ms: dict[str, float] = field(default_factory=dict)
    card: ModelCard | None = None
    notes: tuple[str, ...] = ()
    clean: Image | None = None


@dataclass(frozen=True, slots=True)
class Variant:
    """One way of the same network: its files by batch size.

    Attributes:
        name: What tells it from the others, e.g. ``L1 int8``.
        cost: Expected time of one person beside the others'.
        files: One per batch size.
    """

    name: str
    cost: float
    files: tuple[Path, ...]


def variants_of(files: Sequence[Path]) -> list[Variant]:
    """Return the variants among model files, the costliest, which is the best, first.

    Raises:
        ArtifactError: a file cannot be read, or two are different networks.
        UsageError: two files of one variant have the same batch size.
    """
    cards = {path: read_card(path) for path in files}
    first = cards[files[0]]
    for card in cards.values():
        if (card.model, card.variant, card.weights) != (first.model, first.variant, first.weights):
            raise ArtifactError(
                f"{card.name} and {first.name} are different networks.",
                "Give files of one network: its batch sizes, levels and precisions.",
            )
    groups: dict[tuple[Any, ...], list[Path]] = defaultdict(list)
    for path, card in cards.items():
        plan = card.tokens
        kept = (plan.level, plan.keep) if plan is not None else ("", ())
        groups[(card.model, *kept, card.precision.precision, card.inputs[0].shape[1:])].append(path)
    for paths in groups.values():
        sizes = [cards[path].inputs[0].shape[0] for path in paths]
        if len(set(sizes)) < len(sizes):
            raise UsageError(
                f"Got {', '.join(str(p) for p in paths)}, of which two are the same network with "
                "the same batch size.",
                "Give one of them.",
            )
    alone = len({key[-2] for key in groups}) == 1, len({key[-1] for key in groups}) == 1
    found = []
    for (_, level, _, precision, shape), paths in groups.items():
        card = cards[paths[0]]
        macs = card.tokens.macs if card.tokens is not None else int(np.prod(shape))
        words = (level, "" if alone[0] else precision, "" if alone[1] else f"{shape[0]}x{shape[1]}")
        name = " ".join(filter(None, words))
        found.append(Variant(name, macs * _LOW[precision], tuple(paths)))
    return sorted(found, key=lambda v: -v.cost)


def _check_told(variants: Sequence[Variant]) -> None:
    """Refuse files whose cuts cannot be shown; raises UsageError."""
    plans = [(read_card(path), path) for variant in variants for path in variant.files]
    cut = [(card, path) for card, path in plans if card.tokens is not None and card.tokens.blocks]
    for card, path in cut or plans:
        if not told_blocks(output.name for output in card.outputs):
            raise UsageError(
                f"{path} does not tell which tokens its cuts drop.",
                "Export one that does: prunus export evitpose --level L2 --show-tokens",
            )


def open_steps(
    options: PoseOptions, source: Source[Frame], stack: ExitStack, *, quiet: bool
) -> Steps:
    """Open the models; the stack closes them.

    Raises:
        PrunusError: models or options cannot be used.
    """
    from prunus.runtime.pipeline.governor import Governor
    from prunus.runtime.tasks.pose.estimator import PoseEstimator
    from prunus.runtime.tasks.pose.people import PeopleFinder
    from prunus.runtime.tasks.pose.tracking.background import BackgroundFinder

    info, compute = source.info, options.compute
    budget = None
    if info.kind not in _PICTURES and not options.single and options.boxes is None:
        budget = options.pace.budget_ms(info.live, info.fps / options.stride)
    elif options.pace.budget or options.pace.fps or options.pace.log:
        raise UsageError(
            "A budget is for people who are found and followed in a video or a live source.",
            "Leave out --budget, --fps and --log here.",
        )
    variants = variants_of(pose_models(options.models, options.level))
    if options.show_tokens:
        _check_told(variants)
    if budget is None and len(variants) > 1:
        raise UsageError(
            f"Got {len(variants)} variants ({', '.join(v.name for v in variants)}); without a "
            "budget there is nothing to choose by.",
            "Add --budget 33ms, or give the files of one variant.",
        )
    estimators = [
        stack.enter_context(PoseEstimator.open(v.files, **compute.keywords())) for v in variants
    ]
    governed = None
    if budget is not None:
        rungs = ladder([v.name for v in variants])
        governor = Governor(rungs, [v.cost for v in variants], budget)
        governed = Governed(governor, options.pace.log, quiet=quiet)
        stack.enter_context(closing(governed))
    steps = Steps(options, info, estimators, governed)
    if options.boxes is not None:
        steps.given = read_boxes(options.boxes, _picture_names(source))
    elif not options.single:
        path = find_model(options.finder)
        # An engine cannot hold the finder, so a back end for engines is for the pose network only.
        engines = compute.backend == "tensorrt" and path.suffix == ".onnx"
        backend = "auto" if engines else compute.backend
        beside = info.live and governed is not None and usable_cpus() > 1
        # Beside the pose network one thread is enough, and the other cores stay free for joints.
        threads = 1 if beside and compute.threads is None else compute.threads
        steps.finder = stack.enter_context(PeopleFinder.open(path, backend, threads))
        if options.conf is not None:
            steps.believe(options.conf)
        if beside:
            steps.background = stack.enter_context(closing(BackgroundFinder(steps.finder)))
    return steps


class Opener(Protocol):
    """Gives the steps of a run, as `open_steps` does."""

    def __call__(
        self, options: PoseOptions, source: Source[Frame], stack: ExitStack, *, quiet: bool
    ) -> Steps:
        """Return them; the stack closes what is to be closed."""


def _picture_names(source: Source[Frame]) -> dict[ImageId, str]:
    """Return id -> file name of pictures; a video's frames have none."""
    ids: dict[str, int] = getattr(source, "ids", {})
    return {number: name for name, number in ids.items()}


class Steps:
    """Fill in the poses of a frame, with clocks.

    Args:
        options: What to do.
        info: Of the source.
        estimators: One per variant, best first.
        governed: Chooses among them; None: the first.
    """

    def __init__(
        self,
        options: PoseOptions,
        info: SourceInfo,
        estimators: Sequence[PoseEstimator],
        governed: Governed | None = None,
    ) -> None:
        from prunus.runtime.tasks.pose.smoothing import Smoothing
        from prunus.runtime.tasks.pose.tracking.finding import Finding
        from prunus.runtime.tasks.pose.tracking.single import SinglePerson
        from prunus.runtime.tasks.pose.tracking.tracker import PeopleTracker, TrackerOptions

        post = estimators[0].postprocess
        settings = TrackerOptions(
            finding=Finding(every=options.detect_every),
            smoothing=Smoothing() if options.smooth else None,
            most_people=options.max_people,
        )
        if options.conf is not None:
            settings = dataclasses.replace(settings, minimum_score=options.conf)
        # Of pictures and of boxes that were given, all people are shown unless asked otherwise.
        all_shown = info.kind in _PICTURES or options.boxes is not None
        asked = options.conf is not None
        self._heeded = 0.0 if all_shown and not asked else settings.minimum_score
        self.controls = Controls(
            options,
            {} if options.single else {"conf": "Threshold"},
            {} if options.single else {"conf": self._heeded},
        )
        self._least: float | None = None  # of the finder, as it came
        self.finder: Any = None
        self.background: BackgroundFinder | None = None
        self.given: dict[ImageId, Boxes] | None = None
        self.estimators, self.governed = tuple(estimators), governed
        self._conf, self._most = options.conf or 0.0, options.max_people
        self._estimator = estimators[0]
        self._tracker = PeopleTracker(
            settings, post.sigmas, limbs=post.limbs, flip_pairs=post.flip_pairs
        )
        self._single = SinglePerson() if options.single else None
        self._alone = info.kind in _PICTURES
        self._find_ms = self._search_ms = 0.0

    @property
    def card(self) -> ModelCard:
        """Card of the best variant."""
        return self.estimators[0].card

    def __call__(self, work: Work) -> Work:
        """Fill in the poses of one frame."""
        self._find_ms = 0.0
        if self._single is None and (conf := self.controls["conf"]) != self._heeded:
            self.believe(conf)
        if self.governed is None:
            self._estimator.stage_ms.clear()
            work.poses = self._poses(work.frame)
            work.stage_ms = {"find": self._find_ms, **self._estimator.stage_ms}
        else:
            self._governed(work, self.governed)
        work.card = self._estimator.card
        return work

    def believe(self, conf: float) -> None:
        """Take another least score of a person, 0 to 1."""
        self._heeded = self._conf = conf
        self._tracker.options = dataclasses.replace(self._tracker.options, minimum_score=conf)
        if self.finder is not None:
            if self._least is None:
                self._least = self.finder.minimum_score
            self.finder.minimum_score = min(self._least, conf)

    def _governed(self, work: Work, governed: Governed) -> None:
        """Do what the governor says; tell it what it took."""
        image, now = work.frame.image, work.frame.seconds or 0.0
        rung = governed.begin(self._tracker.people)
        self._estimator = self.estimators[rung.variant]
        self._estimator.stage_ms.clear()
        self._tracker.search.stretch = float(rung.every)
        rare = self._look(image, now)
        people = self._tracker.people
        units = rung.units(people)
        work.poses = self._tracker.follow(image, self._estimator, now, units)
        stages = dict(self._estimator.stage_ms)
        work.stage_ms = {"find": self._find_ms, **stages}
        governed.end(units, sum(stages.values()), rare, work.stage_ms)
        work.notes = (governed.governor.line(),)

    def _look(self, image: Any, now: float) -> float:
        """Look for people if it is time to; return the milliseconds that the frame waited."""
        tracker, background = self._tracker, self.background
        # An answer that is too late for people without a known motion finds them gone: wait for it.
        late = tracker.people == 0 and self._search_ms > _LATE_MS
        if background is None or (late and not background.busy):
            if tracker.wants(image, now):
                tracker.take(self._find(image), now, now, image)
            return self._find_ms
        answer = background.take()
        if answer is not None:
            self._find_ms = self._search_ms = answer.took_ms
            tracker.take(answer.people, answer.seconds, now, answer.frame)
        if not background.busy and tracker.wants(image, now):
            background.offer(image, now)
        return 0.0

    def _poses(self, frame: Frame) -> list[Pose]:
        image = frame.image
        if self.given is not None:
            corners, _ = self.given.get(frame.image_id, (np.zeros((0, 4)), None))
            poses = self._kept(self._estimator(image, corners[: self._most]))
            if self._alone:
                return poses
            return self._tracker.associate(poses, frame.seconds or 0.0, image)
        if self._single is not None:
            if self._alone:  # the person of another picture says nothing about this one
                self._single = type(self._single)()
            return self._single.update(image, self._estimator)
        if self._alone:
            boxes = [p.box for p in self._find(image)[: self._most]]
            poses = self._estimator(image, np.array(boxes, np.float64).reshape(-1, 4))
            return self._kept(poses)
        return self._tracker.update(image, self._find, self._estimator, frame.seconds or 0.0)

    def _kept(self, poses: list[Pose]) -> list[Pose]:
        return [p for p in poses if p.score >= self._conf]

    def _find(self, image: Any) -> list[Pose]:
        start = time.perf_counter()
        found: list[Pose] = self.finder(image)
        self._find_ms += (time.perf_counter() - start) * 1000
        return found
