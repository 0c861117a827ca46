"""The live segmentation app: source -> mask -> painting -> sinks, each in its own thread.

Whatever ends the run (the source, an error, Ctrl-C), the outputs are closed, which makes their
files complete. A folder's damaged pictures are left out and named; the exit code is then 1.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from prunus.apps.common.model_files import segmentation_model
from prunus.apps.io.sinks.registry import Sink
from prunus.apps.io.sources.registry import Frame, Image, Source, SourceInfo, open_source
from prunus.apps.live.loop import (
    Counts,
    Loop,
    Panel,
    announce,
    check_outputs,
    default_sink,
    open_sinks,
)
from prunus.apps.pose.overlay import Colour, draw_panel
from prunus.apps.segmentation.overlay import (
    MODES,
    Look,
    MaskPainter,
    Mode,
    parse_colour,
    subject_number,
)
from prunus.apps.segmentation.results import MaskFolder, MaskList
from prunus.runtime.errors import SourceError, TensorError, UsageError, nearest

if TYPE_CHECKING:
    from prunus.runtime.session.base import BackendOptions
    from prunus.runtime.tasks.segmentation.segmenter import Mask, Segmenter

_PICTURES = ("picture", "folder")


@dataclass(frozen=True, slots=True)
class SegmentationOptions:
    """What to run; see ``prunus run segmentation --help`` for each."""

    source: str
    sinks: tuple[str, ...] = ()
    model: str | None = None
    mode: str = "overlay"
    background: str = "#40a040"
    subject: str | None = None
    opacity: float = 0.5
    masks: str | None = None
    json_out: Path | None = None
    max_frames: int | None = None
    reconnect: bool = True
    smooth: float = 0.6
    numbers: bool = True
    backend: str = "auto"
    threads: int | None = None
    device: str = "cpu"
    switches: BackendOptions | None = None
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class SegmentationSummary:
    """What a run did.

    Attributes:
        model: Short name from the card.
        backend: One line about the session.
        frames: Frames that came out.
        dropped: Frames that a newer one replaced (live sources).
        subject_share: Mean share of the frames that the subject covers, 0..1; None without one.
        seconds: From the first frame in to the last frame out.
        first_ms: From the start of `run_segmentation` to the first frame out.
        stages: Name, p50 and p90 in milliseconds, of each stage.
        outputs: What was written.
        warnings: What went wrong without stopping the run: pictures left out, a video cut off.
        interrupted: Whether Ctrl-C ended it.
    """

    model: str
    backend: str
    frames: int
    dropped: int
    subject_share: float | None
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
        share = self.subject_share
        found = "" if share is None else f", subject {100 * share:.1f} %"
        return "\n".join(counts.lines(found, self.outputs, self.warnings))


@dataclass(slots=True)
class _Work:
    """One frame on its way through the stages; without a mask it could not be segmented."""

    frame: Frame
    mask: Mask | None = None
    stage_ms: dict[str, float] = field(default_factory=dict)


def run_segmentation(options: SegmentationOptions) -> SegmentationSummary:
    """Run until the source ends, the user stops, or `max_frames` are done.

    Raises:
        PrunusError: source, sink, model or options cannot be used. What was written is complete.
    """
    from prunus.runtime.tasks.segmentation.segmenter import Segmenter
    from prunus.runtime.tasks.segmentation.smoothing import MaskSmoothing

    started = time.perf_counter()
    _check(options)
    backdrop = _backdrop(options)
    with ExitStack() as stack:
        source = open_source(options.source, reconnect=options.reconnect)
        stack.enter_context(closing(source))
        sinks = _open_sinks(options, source.info, stack)
        # Pictures are independent of each other: nothing is carried from one to the next.
        steady = options.smooth > 0 and source.info.kind not in _PICTURES
        segmenter = stack.enter_context(
            Segmenter.open(
                segmentation_model(options.model),
                options.backend,
                options.threads,
                device=options.device,
                options=options.switches,
                smoothing=MaskSmoothing(options.smooth) if steady else None,
            )
        )
        post = segmenter.postprocess
        look = Look(
            cast(Mode, options.mode),
            options.opacity,
            subject_number(options.subject, post),
            backdrop,
        )
        run = _Run(options, source, sinks, segmenter, MaskPainter(post, look))
        run.open_results(stack)
        where = segmenter.session.description
        if not options.quiet:
            reasons = list(segmenter.session.choice if options.backend == "auto" else ())
            if not segmenter.card.weights.trained:
                reasons.append("the weights are random: masks show speed, not meaning")
            announce(segmenter.card, where, reasons, source.info, sinks)
        counts = run.loop(started)
    # Only now are all files closed, and so complete.
    outputs = [s.name for s in sinks if s.name != "null:"]
    outputs += [str(out) for out in (options.masks, options.json_out) if out is not None]
    return SegmentationSummary(
        model=segmenter.card.name,
        backend=where,
        frames=counts.frames,
        dropped=counts.dropped,
        subject_share=run.subject_share(),
        seconds=counts.seconds,
        first_ms=counts.first_ms,
        stages=counts.stages,
        outputs=tuple(outputs),
        warnings=tuple(dict.fromkeys((*source.warnings, *run.warnings))),
        interrupted=counts.interrupted,
    )


class _Run:
    """The loop of one run and what it counts."""

    def __init__(
        self,
        options: SegmentationOptions,
        source: Source,
        sinks: list[Sink],
        segmenter: Segmenter,
        painter: MaskPainter,
    ) -> None:
        self.options, self.source, self.sinks = options, source, sinks
        self.segmenter, self.painter = segmenter, painter
        self.warnings: list[str] = []
        self._panel = Panel(segmenter.card, source.info)
        self._folder: MaskFolder | None = None
        self._list: MaskList | None = None
        self._share = 0.0
        self._frames = 0

    def open_results(self, stack: ExitStack) -> None:
        """Open the outputs besides pictures."""
        if self.options.masks is not None:
            self._folder = MaskFolder(Path(self.options.masks))
        if self.options.json_out is not None:
            results = MaskList(self.options.json_out, self.segmenter.postprocess)
            self._list = stack.enter_context(closing(results))

    def loop(self, started: float) -> Counts:
        """Run the pipeline to its end and count.

        Raises:
            SourceError: not one picture of a folder could be segmented.
        """
        from prunus.runtime.pipeline.pipeline import Stage

        def stages(dropped: Callable[[], int]) -> list[Stage]:
            draw = Stage("draw", lambda work: self._draw(work, dropped()))
            both = [Stage("segment", self._segment), draw]
            return both if self.sinks_draw else both[:1]

        counts = Loop(
            "segmentation",
            self.source,
            _Work,
            stages,
            self._write,
            lambda work: "",
            self.options.max_frames,
            self.options.quiet,
            started,
        ).run()
        if self.warnings and not self._frames:
            raise SourceError(self.warnings[0].removeprefix("skipped: "), "No picture is left.")
        return dataclasses.replace(counts, frames=self._frames)

    @property
    def sinks_draw(self) -> bool:
        """Whether anybody looks at the frames."""
        return any(sink.name != "null:" for sink in self.sinks)

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

    def _draw(self, work: _Work, dropped: int) -> _Work:
        if work.mask is not None:
            scene = self.painter(work.frame.image, work.mask)
            if self.options.numbers:
                self.painter.legend(scene, work.mask)
                draw_panel(scene, self._panel.lines(work.stage_ms, dropped))
        return work

    def _write(self, work: _Work) -> None:
        if work.mask is None:
            return
        self._frames += 1
        if self.painter.look.subject >= 0:
            self._share += float((work.mask.classes == self.painter.look.subject).mean())
        file = self._folder.write(work.frame, work.mask) if self._folder is not None else ""
        if self._list is not None:
            self._list.write(work.frame, work.mask, file)
        for sink in self.sinks:
            sink.write(work.frame, work.frame.image)


def _check(options: SegmentationOptions) -> None:
    if options.mode not in MODES:
        raise UsageError(
            f"Unknown mode '{options.mode}'{nearest(options.mode, list(MODES))}.",
            f"Use one of: {', '.join(MODES)}",
        )
    masks, sinks = options.masks, options.sinks
    outputs = (*sinks, masks or "", str(options.json_out or ""))
    check_outputs(options.source, outputs, _backdrop_files(options))
    if masks is not None and any(Path(masks).resolve() == Path(s).resolve() for s in sinks):
        raise UsageError(f"{masks} is to hold masks and drawn frames.", "Give two folders.")


def _backdrop_files(options: SegmentationOptions) -> tuple[Path, ...]:
    picture = options.mode == "replace" and parse_colour(options.background) is None
    return (Path(options.background),) if picture else ()


def _backdrop(options: SegmentationOptions) -> Image | Colour:
    colour = parse_colour(options.background)
    if options.mode != "replace" or colour is not None:
        return colour or (0, 0, 0)
    from prunus.apps.io.sources.pictures import read_picture

    path = Path(options.background)
    if not path.is_file():
        raise SourceError(
            f"Background not found: {options.background}.",
            "Give a picture, or a colour such as '#40a040' (with quotes in a shell).",
        )
    return read_picture(path)


def _open_sinks(options: SegmentationOptions, info: SourceInfo, stack: ExitStack) -> list[Sink]:
    uris = options.sinks
    if not uris:
        silent = options.masks is not None or options.json_out is not None
        uris = ("null:",) if silent else (default_sink(options.source, info, "mask"),)
    return open_sinks(uris, info, stack)
