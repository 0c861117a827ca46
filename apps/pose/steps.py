"""From frames to their people: find, follow, estimate; alone or under a governor.

Several sources share everything but what is known of their people (`follow`); the joints of one
frame of each are read together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from prunus.apps.common.model_files import find_model, pose_models
from prunus.apps.io.frames import Frame, Image, Source, SourceInfo
from prunus.apps.live.controls import Controls
from prunus.apps.live.governing import Governed, ladder
from prunus.apps.pose.coco_results import read_boxes
from prunus.apps.pose.follow import Follower
from prunus.apps.pose.options import PoseOptions
from prunus.runtime.card.artifact import read_card
from prunus.runtime.card.tokens import told_blocks
from prunus.runtime.errors import ArtifactError, UsageError
from prunus.runtime.host import usable_cpus

if TYPE_CHECKING:
    from prunus.apps.pose.coco import ImageId
    from prunus.runtime.card.card import ModelCard
    from prunus.runtime.tasks.pose.estimator import Pose, PoseEstimator

_LOW = {"fp32": 1.0, "fp16": 1.0, "int8": 0.6}  # first guess of what a number format saves


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
    options: PoseOptions, sources: Sequence[Source[Frame]], stack: ExitStack, *, quiet: bool
) -> Steps:
    """Open the models; the stack closes them.

    Raises:
        PrunusError: models or options cannot be used.
    """
    from prunus.runtime.pipeline.governor import Governor
    from prunus.runtime.tasks.pose.estimator import PoseEstimator
    from prunus.runtime.tasks.pose.people import PeopleFinder
    from prunus.runtime.tasks.pose.tracking.background import BackgroundFinder

    infos, compute = [source.info for source in sources], options.compute
    budget, live = None, any(info.live for info in infos)
    moving = [info for info in infos if not info.still]
    if moving and not options.single and options.boxes is None:
        # A round has a frame of each, so the fastest source sets the time.
        budget = options.pace.budget_ms(live, max(i.fps for i in moving) / options.stride)
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
    steps = Steps(options, infos, estimators, governed)
    if options.boxes is not None:
        [source] = sources
        steps.followers[0].given = read_boxes(options.boxes, _picture_names(source))
    elif not options.single:
        path = find_model(options.finder)
        # An engine cannot hold the finder, so a back end for engines is for the pose network only.
        engines = compute.backend == "tensorrt" and path.suffix == ".onnx"
        backend = "auto" if engines else compute.backend
        beside = live and governed is not None and usable_cpus() > 1
        # Beside the pose network one thread is enough, and the other cores stay free for joints.
        threads = 1 if beside and compute.threads is None else compute.threads
        steps.finder = stack.enter_context(PeopleFinder.open(path, backend, threads))
        if options.conf is not None:
            steps.believe(options.conf)
        for follower in steps.followers if beside else ():
            found = BackgroundFinder(steps.finder)
            follower.background = stack.enter_context(closing(found))
    return steps


class Opener(Protocol):
    """Gives the steps of a run, as `open_steps` does."""

    def __call__(
        self, options: PoseOptions, sources: Sequence[Source[Frame]], stack: ExitStack, *,
        quiet: bool,
    ) -> Steps:  # fmt: skip
        """Return them; the stack closes what is to be closed."""


def _picture_names(source: Source[Frame]) -> dict[ImageId, str]:
    """Return id -> file name of pictures; a video's frames have none."""
    ids: dict[str, int] = getattr(source, "ids", {})
    return {number: name for name, number in ids.items()}


class Steps:
    """Fill in the poses of one frame of each source, with clocks.

    Args:
        options: What to do.
        infos: Of the sources.
        estimators: One per variant, best first.
        governed: Chooses among them; None: the first.
    """

    def __init__(
        self,
        options: PoseOptions,
        infos: Sequence[SourceInfo],
        estimators: Sequence[PoseEstimator],
        governed: Governed | None = None,
    ) -> None:
        post = estimators[0].postprocess
        self.followers = [Follower(options, info, post, self._find) for info in infos]
        # Of pictures and of boxes that were given, all people are shown unless asked otherwise.
        all_shown = all(info.still for info in infos) or options.boxes is not None
        asked = options.conf is not None
        self._heeded = 0.0 if all_shown and not asked else self.followers[0].least
        self.controls = Controls(
            options,
            {} if options.single else {"conf": "Threshold"},
            {} if options.single else {"conf": self._heeded},
        )
        self._least: float | None = None  # of the finder, as it came
        self.finder: Any = None
        self.estimators, self.governed = tuple(estimators), governed
        self._single = options.single

    def _find(self, image: Image) -> list[Pose]:
        found: list[Pose] = self.finder(image)
        return found

    @property
    def card(self) -> ModelCard:
        """Card of the best variant."""
        return self.estimators[0].card

    def __call__(self, works: Mapping[int, Work]) -> Mapping[int, Work]:
        """Fill in the poses of a frame of each source, by its number."""
        if not self._single and (conf := self.controls["conf"]) != self._heeded:
            self.believe(conf)
        estimator, governed, every = self.estimators[0], self.governed, 1
        if governed is not None:
            rung = governed.begin(sum(self.followers[k].people for k in works))
            estimator, every = self.estimators[rung.variant], rung.every
        estimator.stage_ms.clear()

        units: list[int] = []

        def share(people: int) -> int | None:
            if governed is None:
                return None
            units.append(rung.units(people))
            return units[-1]

        order = sorted(works)
        boxes = [self.followers[k].ask(works[k].frame, share, every) for k in order]
        read: list[list[Pose]] = [[] for _ in order]
        if any(map(len, boxes)):
            read = estimator.many([works[k].frame.image for k in order], boxes)
        stages = dict(estimator.stage_ms)
        for k, poses in zip(order, read, strict=True):
            work, follower = works[k], self.followers[k]
            work.poses = follower.answer(work.frame, poses)
            work.stage_ms = {"find": follower.find_ms, **stages}
            work.card = estimator.card
        if governed is not None:
            found = [self.followers[k] for k in order]
            governed.end(
                sum(units), sum(stages.values()), sum(f.waited_ms for f in found),
                {"find": sum(f.find_ms for f in found), **stages},
            )  # fmt: skip
            for work in works.values():
                work.notes = (governed.governor.line(),)
        return works

    def believe(self, conf: float) -> None:
        """Take another least score of a person, 0 to 1."""
        self._heeded = conf
        for follower in self.followers:
            follower.believe(conf)
        if self.finder is not None:
            if self._least is None:
                self._least = self.finder.minimum_score
            self.finder.minimum_score = min(self._least, conf)
