"""The live segmentation app: source -> mask -> painting -> sinks, each in its own thread.

Whatever ends the run (the source, an error, Ctrl-C), the outputs are closed, which makes their
files complete. A folder's damaged pictures are left out and named; the exit code is then 1.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from prunus.apps.common.model_files import segmentation_model
from prunus.apps.io.frames import Frame, Image
from prunus.apps.live.controls import Controls
from prunus.apps.live.feeds import Feed, Feeds
from prunus.apps.live.loop import Counts, Panel, announce, check_outputs, each, run_frames
from prunus.apps.live.outputs import Write
from prunus.apps.live.pages import Pages, card_facts
from prunus.apps.live.summary import FrameSummary
from prunus.apps.live.wall import Walls
from prunus.apps.pose.overlay import Colour, draw_panel
from prunus.apps.segmentation.options import SegmentationEvalOptions, SegmentationOptions
from prunus.apps.segmentation.overlay import Look, MaskPainter, parse_colour, subject_number
from prunus.apps.segmentation.results import MaskFolder, MaskList
from prunus.runtime.errors import SourceError, TensorError, UsageError

if TYPE_CHECKING:
    from prunus.apps.common.scores import Scores
    from prunus.runtime.progress import Progress
    from prunus.runtime.tasks.segmentation.card import MaskPostprocess
    from prunus.runtime.tasks.segmentation.segmenter import Mask, Segmenter



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
    """One frame on its way through the stages."""

    frame: Frame
    mask: Mask | None = None  # until it is segmented
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

    started = time.perf_counter()
    _check(options)
    backdrop = _backdrop(options)
    files = (options.masks, options.json_out)
    with ExitStack() as stack:
        feeds = Feeds(options.sources, stack, reconnect=options.reconnect, quiet=quiet)
        walls = Walls(feeds)
        for feed in feeds.open:
            feed.add_sinks(options.sinks, "mask", files, walls.opener(feed))
        segmenter = stack.enter_context(
            (opener or Segmenter.open)(
                segmentation_model(options.model), **options.compute.keywords()
            )
        )
        post = segmenter.postprocess
        subject = subject_number(options.subject, post)
        look = Look(options.mode, options.opacity, subject, backdrop)
        run = _Run(options, feeds, segmenter, MaskPainter(post, look))
        run.open_results()
        if not quiet:
            random = "the weights are random: masks show speed, not meaning"
            reasons = () if segmenter.card.weights.trained else (random,)
            announce(segmenter.session, feeds.infos, feeds.sinks, options.compute, reasons)
        counts = run.loop(started, quiet)
        feeds.finish()
    # Only now are all files closed, and so complete.
    return SegmentationSummary(
        model=segmenter.card.name,
        backend=segmenter.session.description,
        subject_share=run.subject_share(feeds.open),
        outputs=feeds.outputs(),
        warnings=feeds.warnings(),
        sources=feeds.rows(lambda feed: {"subject_share": run.subject_share([feed])}),
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
        feeds: Feeds,
        segmenter: Segmenter,
        painter: MaskPainter,
    ) -> None:
        from prunus.runtime.tasks.segmentation.smoothing import MaskSmoothing

        self.options, self.feeds = options, feeds
        self.segmenter, self.painter = segmenter, painter
        # Without a class to keep in front there is no background to change.
        modes = {"mode": "Show"} if painter.look.subject >= 0 else {}
        self._controls = Controls(options, {**modes, "opacity": "Opacity"})
        if not feeds.alone:
            self._controls.choose_among(feeds.names)
        self._pages = [
            Pages(feed.outputs.sinks, self._controls, segmenter.card.name, feed.uri)
            for feed in feeds.open
        ]
        self._panels = [Panel(segmenter.card, info) for info in feeds.infos]
        self._share = dict.fromkeys(range(len(feeds.open)), 0.0)
        # Pictures are independent of each other: nothing is carried from one to the next.
        steady = options.steady and options.smooth > 0
        self._steady = [
            MaskSmoothing(options.smooth) if steady and not info.still else None
            for info in feeds.infos
        ]

    def open_results(self) -> None:
        """Open the outputs besides pictures."""
        masks, listed, post = self.options.masks, self.options.json_out, self.segmenter.postprocess
        for feed in self.feeds.open:
            if masks is not None:
                feed.add_file(Path(masks), _masks)
            if listed is not None:
                feed.add_file(listed, partial(_listed, post))

    def loop(self, started: float, quiet: bool) -> Counts:
        """Run the pipeline to its end and count.

        Raises:
            SourceError: not one picture of a folder could be segmented.
        """
        from prunus.runtime.pipeline.pipeline import Stage

        stages = [Stage("segment", self._segment)]
        if any(feed.outputs.draws for feed in self.feeds.open):
            stages.append(Stage("draw", each(self._draw)))
        counts = run_frames(
            self.feeds,
            _Work,
            self._write,
            title="segmentation",
            stages=stages,
            note=lambda works, rate: self.feeds.rate(rate),
            controls=self._controls,
            limit=self.options.max_frames,
            quiet=quiet,
            started=started,
        )
        left_out = [line for feed in self.feeds.open for line in feed.skipped]
        if left_out and not counts.frames:
            raise SourceError(left_out[0].removeprefix("skipped: "), "No picture is left.")
        return counts

    def subject_share(self, feeds: Sequence[Feed]) -> float | None:
        """Return the mean share of the frames of some sources that the subject covers."""
        frames = sum(feed.frames for feed in feeds)
        if self.painter.look.subject < 0 or not frames:
            return None
        return sum(self._share[feed.number] for feed in feeds) / frames

    def _segment(self, works: dict[int, _Work]) -> dict[int, _Work]:
        order, places = sorted(works), self.segmenter.places
        done: dict[int, _Work] = {}
        for first in range(0, len(order), places):
            done |= self._segment_together({k: works[k] for k in order[first : first + places]})
        return done

    def _segment_together(self, works: dict[int, _Work]) -> dict[int, _Work]:
        """Return those of one run of the network that could be segmented."""
        try:
            images = [work.frame.image for work in works.values()]
            masks = self.segmenter.many(images, [self._steady[k] for k in works])
        except TensorError:
            raise  # the model's fault, not this picture's
        except UsageError as error:
            if len(works) > 1:  # whose fault is it?
                parts = [self._segment_together({k: work}) for k, work in works.items()]
                return {k: work for part in parts for k, work in part.items()}
            [(number, work)] = works.items()
            if self.feeds.open[number].info.kind != "folder":
                raise
            line = f"skipped: {work.frame.name}: {error.message}"
            self.feeds.open[number].skipped.append(line)
            return {}
        for work, mask in zip(works.values(), masks, strict=True):
            work.mask, work.stage_ms = mask, self.segmenter.stage_ms
        return works

    def _draw(self, number: int, work: _Work) -> None:
        assert work.mask is not None, "segmented before"
        pages = self._pages[number]
        self.painter.look = self._look()
        if self.painter.look.mode == "overlay":  # else what was painted is the picture
            work.clean = pages.clean(work.frame.image)
        scene = self.painter(work.frame.image, work.mask)
        if self.painter.look.mode != "overlay":
            work.clean = pages.clean(scene)
        if self.options.numbers:
            self.painter.legend(scene, work.mask)
            dropped = self.feeds.open[number].dropped
            draw_panel(scene, self._panels[number].lines(work.stage_ms, dropped))

    def _look(self) -> Look:
        values = self._controls.values()
        mode = values.get("mode", self.options.mode)
        return dataclasses.replace(self.painter.look, mode=mode, opacity=values["opacity"])

    def _write(self, feed: Feed, work: _Work, stage_ms: Mapping[str, float]) -> None:
        assert work.mask is not None, "segmented before"
        if self.painter.look.subject >= 0:
            inside = work.mask.classes == self.painter.look.subject
            self._share[feed.number] += float(inside.mean())
        self._tell(feed, work, work.mask, stage_ms)
        feed.outputs.write(work)

    def _tell(self, feed: Feed, work: _Work, mask: Mask, stage_ms: Mapping[str, float]) -> None:
        facts = {**card_facts(self.segmenter.card), "Dropped": feed.dropped}
        stages = {**work.stage_ms, "draw": stage_ms.get("draw", 0.0)}
        shapes = partial(self.painter.shapes, mask)
        self._pages[feed.number].tell(work.clean, facts, stages, shapes)


def _masks(path: Path, common: Mapping[str, str], owned: ExitStack) -> Write:
    folder = MaskFolder(path)

    def write(work: _Work) -> None:
        assert work.mask is not None, "frames without one are left out"
        work.file = folder.write(work.frame, work.mask)

    return write


def _listed(
    post: MaskPostprocess, path: Path, common: Mapping[str, str], owned: ExitStack
) -> Write:
    results = owned.enter_context(closing(MaskList(path, post, common)))

    def write(work: _Work) -> None:
        assert work.mask is not None, "frames without one are left out"
        results.write(work.frame, work.mask, work.file)

    return write


def _check(options: SegmentationOptions) -> None:
    masks, sinks = options.masks, options.sinks
    outputs = (*sinks, masks or "", str(options.json_out or ""))
    check_outputs(options.sources, outputs, _backdrop_files(options))
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
