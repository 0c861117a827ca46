"""The live pose app: source -> people -> joints -> drawing -> sinks, each in its own thread.

The finder looks for people by time and need; in between each person is followed from the previous
joints; live, a governor holds the time of a frame. Pictures are independent of each other, so there
the finder runs on every one. Whatever ends the run (the source, an error, Ctrl-C), the sinks are
closed, which makes their files complete.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prunus.apps.common.model_files import pose_models, why_default
from prunus.apps.live.feeds import Feed, Feeds
from prunus.apps.live.governing import Held
from prunus.apps.live.loop import Counts, Panel, announce, check_outputs, each, run_frames
from prunus.apps.live.outputs import Write
from prunus.apps.live.pages import Pages, card_facts
from prunus.apps.live.summary import FrameSummary
from prunus.apps.live.wall import Walls
from prunus.apps.pose.coco_results import ResultWriter
from prunus.apps.pose.options import PoseEvalOptions, PoseOptions
from prunus.apps.pose.overlay import (
    Bones,
    draw_panel,
    draw_people,
    draw_tokens,
    people_shapes,
    skeleton_shape,
)
from prunus.apps.pose.steps import Opener, Steps, Work, open_steps
from prunus.runtime.errors import UsageError

if TYPE_CHECKING:
    from prunus.apps.common.scores import Scores
    from prunus.runtime.card.card import ModelCard
    from prunus.runtime.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary(FrameSummary):
    """What a run did.

    Attributes:
        people: People over all frames.
        pace: How the budget was held, None without one.
    """

    people: int
    pace: Held | None = None

    def found(self) -> str:
        """Return how many people were seen."""
        return f", {self.people} people"

    def lines(self) -> list[str]:
        """Return rate, times, how the budget was held, and files."""
        first, times, *rest = FrameSummary.lines(self)
        return [first, times, *([self.pace.text()] if self.pace is not None else ()), *rest]


def run_pose(
    options: PoseOptions, *, quiet: bool = False, opener: Opener = open_steps
) -> RunSummary:
    """Run until the source ends, the user stops, or `max_frames` are done.

    Args:
        options: What to run.
        quiet: No progress and no notes.
        opener: Opens the models; one that lends models that are open already saves their opening.

    Raises:
        PrunusError: source, sink, model or options cannot be used. What was written is complete.
    """
    started = time.perf_counter()
    _check(options)
    with ExitStack() as stack:
        feeds = Feeds(options.sources, stack, reconnect=options.reconnect, quiet=quiet)
        walls = Walls(feeds)
        for feed in feeds.open:
            feed.add_sinks(options.sinks, "pose", (options.json_out,), walls.opener(feed))
            if options.json_out is not None:
                feed.add_file(options.json_out, _results)
        steps = opener(options, [feed.source for feed in feeds.open], stack, quiet=quiet)
        session = next(iter(steps.estimators[0].sessions.values()))
        bones = Bones.of(steps.estimators[0].postprocess)
        run = _Run(options, feeds=feeds, steps=steps, bones=bones)
        if not quiet:
            shipped = () if options.models or options.level else (f"model: {why_default()}",)
            announce(session, feeds.infos, feeds.sinks, options.compute, shipped)
        counts = run.loop(steps, started, quiet)
        feeds.finish()
    # Only now are all files closed, and so complete.
    logs, lost = steps.governed.log() if steps.governed is not None else ((), [])
    return RunSummary(
        model=run.card.name,
        backend=session.description,
        people=sum(run.people.values()),
        pace=None if steps.governed is None else steps.governed.held(),
        outputs=(*feeds.outputs(), *logs),
        warnings=(*feeds.warnings(), *lost),
        sources=feeds.rows(lambda feed: {"people": run.people[feed.number]}),
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

    def __init__(self, options: PoseOptions, *, feeds: Feeds, steps: Steps, bones: Bones) -> None:
        self.options, self.feeds = options, feeds
        self.card: ModelCard = steps.card
        self.people = dict.fromkeys(range(len(feeds.open)), 0)
        self._controls, self._bones = steps.controls, bones
        self._panels = [Panel(self.card, feed.info) for feed in feeds.open]
        if not feeds.alone:
            steps.controls.choose_among(feeds.names)
        self._pages = [
            Pages(
                feed.outputs.sinks, steps.controls, self.card.name, feed.uri,
                {"skeleton": skeleton_shape(bones)},
            )
            for feed in feeds.open
        ]  # fmt: skip

    def loop(
        self, people: Callable[[Mapping[int, Work]], Mapping[int, Work]], started: float,
        quiet: bool,
    ) -> Counts:  # fmt: skip
        """Run the pipeline to its end and count."""
        from prunus.runtime.pipeline.pipeline import Stage

        stages = [Stage("pose", people)]
        if self.options.overlay:
            stages.append(Stage("draw", each(self._draw)))
        return run_frames(
            self.feeds,
            Work,
            self._write,
            title="pose",
            stages=stages,
            note=self._note,
            controls=self._controls,
            stride=self.options.stride,
            limit=self.options.max_frames,
            quiet=quiet,
            started=started,
        )

    def _note(self, works: Mapping[int, Work], rate: float) -> str:
        seen = sum(len(work.poses) for work in works.values())
        notes = next(iter(works.values())).notes
        return ", ".join((f"{self.feeds.rate(rate)}, {seen} people", *notes))

    def _draw(self, number: int, work: Work) -> None:
        if self.options.show_tokens:
            draw_tokens(work.frame.image, [p.tokens for p in work.poses if p.age_s == 0.0])
        work.clean = self._pages[number].clean(work.frame.image)
        draw_people(work.frame.image, work.poses, self._bones)
        # Finding people is rare, and its zeros in between would hide what it costs.
        panel, dropped = self._panels[number], self.feeds.open[number].dropped
        panel.card = work.card or self.card
        draw_panel(work.frame.image, panel.lines(work.stage_ms, dropped, ("find",), work.notes))

    def _write(self, feed: Feed, work: Work, stage_ms: Mapping[str, float]) -> None:
        self.people[feed.number] += len(work.poses)
        self._tell(feed, work, stage_ms)
        feed.outputs.write(work)

    def _tell(self, feed: Feed, work: Work, stage_ms: Mapping[str, float]) -> None:
        facts: dict[str, object] = {**card_facts(work.card or self.card)}
        if work.notes:
            facts["Governor"] = ", ".join(work.notes)
        facts |= {"People": len(work.poses), "Dropped": feed.dropped}
        stages = {**work.stage_ms, "draw": stage_ms.get("draw", 0.0)}
        self._pages[feed.number].tell(work.clean, facts, stages, lambda: people_shapes(work.poses))


def _check(options: PoseOptions) -> None:
    if options.single and options.boxes is not None:
        raise UsageError("Got --single and --boxes; expected one of them.", "Leave one out.")
    if options.show_tokens and not options.overlay:
        raise UsageError("Got --show-tokens and --no-overlay; expected one.", "Leave one out.")
    log = options.pace.log
    if log is not None and (log.suffix.lower() not in (".jsonl", "") or log == options.json_out):
        raise UsageError(
            f"Got --log {log}; expected a .jsonl file of its own, or -.", "Example: --log run.jsonl"
        )
    if options.boxes is not None and len(options.sources) > 1:
        raise UsageError(
            f"Got --boxes and {len(options.sources)} sources; boxes are those of one.",
            "Run the sources one by one.",
        )
    check_outputs(
        options.sources,
        (*options.sinks, str(options.json_out or "")),
        () if options.boxes is None else (options.boxes,),
    )
    for source in options.sources:  # the log is one for all
        check_outputs((source,), (str(log or ""),))


def _results(path: Path, common: Mapping[str, str], owned: ExitStack) -> Write:
    results = owned.enter_context(closing(ResultWriter(path, common=common)))
    return lambda work: results.write(work.frame, work.poses)
