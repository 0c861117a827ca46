"""The live segmentation app: source -> mask -> painting -> sinks, each in its own thread.

Whatever ends the run (the source, an error, Ctrl-C), the outputs are closed, which makes their
files complete. A folder's damaged pictures are left out and named; the exit code is then 1.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from prunus.apps.common.model_files import segmentation_model
from prunus.apps.io.sources.registry import Frame, Image, Source, open_source
from prunus.apps.live.controls import Controls
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
from prunus.apps.pose.overlay import Colour, draw_panel
from prunus.apps.segmentation.options import SegmentationEvalOptions, SegmentationOptions
from prunus.apps.segmentation.overlay import Look, MaskPainter, parse_colour, subject_number
from prunus.apps.segmentation.results import MaskFolder, MaskList
from prunus.runtime.errors import SourceError, TensorError, UsageError

if TYPE_CHECKING:
    from prunus.apps.common.scores import Scores
    from prunus.runtime.progress import Progress
    from prunus.runtime.tasks.segmentation.segmenter import Mask, Segmenter

_PICTURES = ("picture", "folder")


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationSummary(FrameSummary):
    """What a run did.

    Attributes:
        subject_share: Mean share of the frames that the subject covers, 0..1; None without one.
    """

    subject_share: float | None

    def found(self) -> str:
        """Return how much of the frames the subject covers."""
        share = self.subject_share
        return "" if share is None else f", subject {100 * share:.1f} %"


_BACKGROUND = "#40a040"


@dataclass(slots=True)
class _Work:
    """One frame on its way through the stages; without a mask it could not be segmented."""

    frame: Frame
    mask: Mask | None = None
    clean: Image | None = None
    file: str = ""  # of the mask
    stage_ms: dict[str, float] = field(default_factory=dict)


def run_segmentation(
    options: SegmentationOptions,
    *,
    quiet: bool = False,
    opener: Callable[..., Segmenter] | None = None,
) -> SegmentationSummary:
    """Run until the source ends, the user stops, or `max_frames` are done.

    Args:
        options: What to run.
        quiet: No progress and no notes.
        opener: Opens the model as `Segmenter.open` does, which is the default; one that lends a
            model that is open already saves its opening.

    Raises:
        PrunusError: source, sink, model or options cannot be used. What was written is complete.
    """
    from prunus.runtime.tasks.segmentation.segmenter import Segmenter
    from prunus.runtime.tasks.segmentation.smoothing import MaskSmoothing

    started = time.perf_counter()
    _check(options)
    backdrop = _backdrop(options)
    files = (options.masks, options.json_out)
    with ExitStack() as stack:
        source = open_source(options.source, reconnect=options.reconnect)
        stack.enter_context(closing(source))
        outputs = Outputs(stack)
        outputs.add_sinks(options.sinks, options.source, source.info, ending="mask", files=files)
        # Pictures are independent of each other: nothing is carried from one to the next.
        steady = options.steady and options.smooth > 0 and source.info.kind not in _PICTURES
        segmenter = stack.enter_context(
            (opener or Segmenter.open)(
                segmentation_model(options.model),
                smoothing=MaskSmoothing(options.smooth) if steady else None,
                **options.compute.keywords(),
            )
        )
        post = segmenter.postprocess
        subject = subject_number(options.subject, post)
        look = Look(options.mode, options.opacity, subject, backdrop)
        run = _Run(options, source, outputs, segmenter, MaskPainter(post, look))
        run.open_results()
        if not quiet:
            random = "the weights are random: masks show speed, not meaning"
            reasons = () if segmenter.card.weights.trained else (random,)
            announce(segmenter.session, source.info, outputs.names, options.compute, reasons)
        counts = run.loop(started, quiet)
        failures = outputs.finish()
    # Only now are all files closed, and so complete.
    return SegmentationSummary(
        model=segmenter.card.name,
        backend=segmenter.session.description,
        subject_share=run.subject_share(),
        outputs=outputs.written,
        warnings=tuple(dict.fromkeys((*source.warnings, *run.warnings, *failures))),
        **dataclasses.asdict(counts),
    )


def evaluate_segmentation(options: SegmentationEvalOptions, progress: Progress) -> Scores:
    """Score a segmentation model on labelled pictures; raises PrunusError."""
    from prunus.apps.segmentation.evaluate import evaluate_segmentation_folder, parse_numbers
    from prunus.runtime.tasks.segmentation.segmenter import Segmenter

    positive = parse_numbers(options.positive)
    path = segmentation_model(options.model)
    with Segmenter.open(path, **options.compute.keywords()) as segmenter:
        result = evaluate_segmentation_folder(
            segmenter, options.folder, options.masks, layout=options.layout,
            ignored=options.ignore, positive=positive, limit=options.limit, progress=progress,
        )  # fmt: skip
    if options.output is not None:
        result.save(options.output)
    return result


class _Run:
    """The loop of one run and what it counts."""

    def __init__(
        self,
        options: SegmentationOptions,
        source: Source[Frame],
        outputs: Outputs,
        segmenter: Segmenter,
        painter: MaskPainter,
    ) -> None:
        self.options, self.source, self.outputs = options, source, outputs
        self.segmenter, self.painter = segmenter, painter
        # Without a class to keep in front there is no background to change.
        modes = {"mode": "Show"} if painter.look.subject >= 0 else {}
        self._controls = Controls(options, {**modes, "opacity": "Opacity"})
        self._pages = Pages(outputs.sinks, self._controls, segmenter.card.name, options.source)
        self._dropped: Callable[[], int] = int
        self.warnings: list[str] = []
        self._panel = Panel(segmenter.card, source.info)
        self._share = 0.0
        self._frames = 0

    def open_results(self) -> None:
        """Open the outputs besides pictures."""
        masks, listed = self.options.masks, self.options.json_out
        if masks is not None:
            self.outputs.add(masks, lambda owned: _masks(MaskFolder(Path(masks))))
        if listed is not None:
            results = partial(MaskList, listed, self.segmenter.postprocess)
            self.outputs.add(str(listed), lambda owned: _listed(results(), owned))

    def loop(self, started: float, quiet: bool) -> Counts:
        """Run the pipeline to its end and count.

        Raises:
            SourceError: not one picture of a folder could be segmented.
        """
        from prunus.runtime.pipeline.pipeline import Stage

        def stages(dropped: Callable[[], int]) -> list[Stage]:
            self._dropped = dropped
            both = [Stage("segment", self._segment), Stage("draw", self._draw)]
            return both if self.outputs.draws else both[:1]

        counts = frames_loop(
            self.source,
            _Work,
            title="segmentation",
            stages=stages,
            write=self._write,
            note=lambda work, rate: f"{rate:.1f} frames/s",
            controls=self._controls,
            limit=self.options.max_frames,
            quiet=quiet,
            started=started,
        ).run()
        if self.warnings and not self._frames:
            raise SourceError(self.warnings[0].removeprefix("skipped: "), "No picture is left.")
        return dataclasses.replace(counts, frames=self._frames)

    def subject_share(self) -> float | None:
        """Return the mean share of the frames that the subject covers."""
        if self.painter.look.subject < 0 or not self._frames:
            return None
        return self._share / self._frames

    def _segment(self, work: _Work) -> _Work:
        try:
            work.mask = self.segmenter(work.frame.image)
        except TensorError:
            raise  # the model's fault, not this picture's
        except UsageError as error:
            if self.source.info.kind != "folder":
                raise
            self.warnings.append(f"skipped: {work.frame.name}: {error.message}")
        work.stage_ms = self.segmenter.stage_ms
        return work

    def _draw(self, work: _Work) -> _Work:
        if work.mask is not None:
            self.painter.look = self._look()
            if self.painter.look.mode == "overlay":  # else what was painted is the picture
                work.clean = self._pages.clean(work.frame.image)
            scene = self.painter(work.frame.image, work.mask)
            if self.painter.look.mode != "overlay":
                work.clean = self._pages.clean(scene)
            if self.options.numbers:
                self.painter.legend(scene, work.mask)
                draw_panel(scene, self._panel.lines(work.stage_ms, self._dropped()))
        return work

    def _look(self) -> Look:
        values = self._controls.values()
        mode = values.get("mode", self.options.mode)
        return dataclasses.replace(self.painter.look, mode=mode, opacity=values["opacity"])

    def _write(self, work: _Work, stage_ms: Mapping[str, float]) -> None:
        if work.mask is None:
            return
        self._frames += 1
        if self.painter.look.subject >= 0:
            self._share += float((work.mask.classes == self.painter.look.subject).mean())
        self._tell(work, work.mask, stage_ms)
        self.outputs.write(work)

    def _tell(self, work: _Work, mask: Mask, stage_ms: Mapping[str, float]) -> None:
        facts = {**card_facts(self.segmenter.card), "Dropped": self._dropped()}
        stages = {**work.stage_ms, "draw": stage_ms.get("draw", 0.0)}
        self._pages.tell(work.clean, facts, stages, lambda: self.painter.shapes(mask))


def _masks(folder: MaskFolder) -> Write:
    def write(work: _Work) -> None:
        assert work.mask is not None, "frames without one are left out"
        work.file = folder.write(work.frame, work.mask)

    return write


def _listed(results: MaskList, owned: ExitStack) -> Write:
    owned.enter_context(closing(results))

    def write(work: _Work) -> None:
        assert work.mask is not None, "frames without one are left out"
        results.write(work.frame, work.mask, work.file)

    return write


def _check(options: SegmentationOptions) -> None:
    masks, sinks = options.masks, options.sinks
    outputs = (*sinks, masks or "", str(options.json_out or ""))
    check_outputs(options.source, outputs, _backdrop_files(options))
    if masks is not None and any(Path(masks).resolve() == Path(s).resolve() for s in sinks):
        raise UsageError(f"{masks} is to hold masks and drawn frames.", "Give two folders.")


def _backdrop_files(options: SegmentationOptions) -> tuple[Path, ...]:
    given = options.background
    return (Path(given),) if given is not None and parse_colour(given) is None else ()


def _backdrop(options: SegmentationOptions) -> Image | Colour:
    given = _BACKGROUND if options.background is None else options.background
    if options.background is not None and options.mode != "replace":
        raise UsageError(
            f"Got --background {given} with --mode {options.mode}, which shows none.",
            "Add --mode replace.",
        )
    if (colour := parse_colour(given)) is not None:
        return colour
    from prunus.runtime.pictures.files import read_picture

    path = Path(given)
    if not path.is_file():
        raise SourceError(
            f"Background not found: {given}.",
            "Give a picture, or a colour such as '#40a040' (with quotes in a shell).",
        )
    return read_picture(path)
