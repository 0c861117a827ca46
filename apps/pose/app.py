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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from prunus.apps.common.model_files import pose_models, why_default
from prunus.apps.io.sources.registry import Frame, Source, open_source
from prunus.apps.live.governing import Held
from prunus.apps.live.loop import (
    Counts,
    Panel,
    announce,
    check_outputs,
    frames_loop,
)
from prunus.apps.live.outputs import Outputs, Write
from prunus.apps.live.pages import Pages, card_facts
from prunus.apps.live.summary import FrameSummary
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
        source = open_source(options.source, reconnect=options.reconnect)
        stack.enter_context(closing(source))
        outputs = Outputs(stack)
        outputs.add_sinks(
            options.sinks, options.source, source.info, ending="pose", files=(options.json_out,)
        )
        if options.json_out is not None:
            outputs.add(str(options.json_out), partial(_results, options.json_out))
        steps = opener(options, source, stack, quiet=quiet)
        session = next(iter(steps.estimators[0].sessions.values()))
        bones = Bones.of(steps.estimators[0].postprocess)
        run = _Run(options, source=source, outputs=outputs, steps=steps, bones=bones)
        if not quiet:
            shipped = () if options.models or options.level else (f"model: {why_default()}",)
            announce(session, source.info, outputs.names, options.compute, shipped)
        counts = run.loop(steps, started, quiet)
        failures = outputs.finish()
    # Only now are all files closed, and so complete.
    logs, lost = steps.governed.log() if steps.governed is not None else ((), [])
    return RunSummary(
        model=run.card.name,
        backend=session.description,
        people=run.people,
        pace=None if steps.governed is None else steps.governed.held(),
        outputs=(*outputs.written, *logs),
        warnings=tuple(dict.fromkeys((*source.warnings, *failures, *lost))),
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
        outputs: Outputs,
        steps: Steps,
        bones: Bones,
    ) -> None:
        self.options, self.source, self.outputs = options, source, outputs
        self.card: ModelCard = steps.card
        self.people = 0
        self._controls, self._bones = steps.controls, bones
        self._panel = Panel(self.card, source.info)
        self._dropped: Callable[[], int] = int
        self._pages = Pages(
            outputs.sinks, steps.controls, self.card.name, options.source,
            {"skeleton": skeleton_shape(bones)},
        )  # fmt: skip

    def loop(self, people: Callable[[Work], Work], started: float, quiet: bool) -> Counts:
        """Run the pipeline to its end and count."""
        from prunus.runtime.pipeline.pipeline import Stage

        def stages(dropped: Callable[[], int]) -> list[Stage]:
            self._dropped = dropped
            both = [Stage("pose", people)]
            return [*both, Stage("draw", self._draw)] if self.options.overlay else both

        return frames_loop(
            self.source,
            Work,
            title="pose",
            stages=stages,
            write=self._write,
            note=lambda work, rate: ", ".join(
                (f"{rate:.1f} frames/s, {len(work.poses)} people", *work.notes)
            ),
            controls=self._controls,
            stride=self.options.stride,
            limit=self.options.max_frames,
            quiet=quiet,
            started=started,
        ).run()

    def _draw(self, work: Work) -> Work:
        if self.options.show_tokens:
            draw_tokens(work.frame.image, [p.tokens for p in work.poses if p.age_s == 0.0])
        work.clean = self._pages.clean(work.frame.image)
        draw_people(work.frame.image, work.poses, self._bones)
        # Finding people is rare, and its zeros in between would hide what it costs.
        self._panel.card = work.card or self.card
        lines = self._panel.lines(work.stage_ms, self._dropped(), ("find",), work.notes)
        draw_panel(work.frame.image, lines)
        return work

    def _write(self, work: Work, stage_ms: Mapping[str, float]) -> None:
        self.people += len(work.poses)
        self._tell(work, stage_ms)
        self.outputs.write(work)

    def _tell(self, work: Work, stage_ms: Mapping[str, float]) -> None:
        facts: dict[str, object] = {**card_facts(work.card or self.card)}
        if work.notes:
            facts["Governor"] = ", ".join(work.notes)
        facts |= {"People": len(work.poses), "Dropped": self._dropped()}
        stages = {**work.stage_ms, "draw": stage_ms.get("draw", 0.0)}
        self._pages.tell(work.clean, facts, stages, lambda: people_shapes(work.poses))


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
    check_outputs(
        options.source,
        (*options.sinks, str(options.json_out or ""), str(options.pace.log or "")),
        () if options.boxes is None else (options.boxes,),
    )


def _results(path: Path, owned: ExitStack) -> Write:
    results = owned.enter_context(closing(ResultWriter(path)))
    return lambda work: results.write(work.frame, work.poses)
