"""What every live app shares: sinks, the loop over frames, and the numbers on the picture.

An app brings its stages; capture, dropping of late frames, progress, Ctrl-C and the summary's
counts are the same for all.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from prunus.apps.io.sinks.registry import Sink, Stop, open_sink
from prunus.apps.io.sources.registry import PICTURES, Frame, Source, SourceInfo
from prunus.runtime.errors import UsageError
from prunus.runtime.progress import ConsoleProgress, Silent
from prunus.runtime.references import load
from prunus.runtime.tasks.registry import task_named

if TYPE_CHECKING:
    from prunus.runtime.card.card import ModelCard
    from prunus.runtime.pipeline.pipeline import Pipeline, Stage

_STEADY = 0.9  # share of the old value in the numbers on screen, so that they can be read
_TIMELESS = ("picture", "folder")


class Work(Protocol):
    """One frame on its way through the stages."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class Counts:
    """What a loop did.

    Attributes:
        frames: Frames that came out.
        dropped: Frames that a newer one replaced (live sources).
        seconds: From the first frame in to the last frame out.
        first_ms: From the start of the app to the first frame out.
        stages: Name, p50 and p90 in milliseconds, of each stage.
        interrupted: Whether Ctrl-C ended it.
    """

    frames: int
    dropped: int
    seconds: float
    first_ms: float
    stages: tuple[tuple[str, float, float], ...]
    interrupted: bool

    def lines(self, found: str, outputs: Sequence[str], warnings: Sequence[str]) -> list[str]:
        """Return the summary for people; `found` says what was seen, e.g. ``, 3 people``."""
        rate = self.frames / self.seconds if self.seconds else 0.0
        times = "  ".join(f"{name} {p50:.1f}/{p90:.1f}" for name, p50, p90 in self.stages)
        lines = [
            f"{self.frames} frames{found}, {rate:.1f} frames/s, "
            f"{self.dropped} dropped, first frame after {self.first_ms / 1000:.2f} s",
            f"p50/p90 ms: {times}",
            *(f"wrote {name}" for name in outputs),
            *(f"warning: {line}" for line in warnings),
        ]
        if self.interrupted:
            lines.append("stopped with Ctrl-C; everything above is complete")
        return lines


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop over the frames of a source.

    Attributes:
        title: Name of the app, for the progress line.
        source: Where frames come from.
        begin: Wraps a frame for the stages.
        stages: Returns the stages; gets a function that tells how many frames were dropped.
        write: Takes each frame that comes out.
        note: What the progress line says besides the rate.
        max_frames: Stop after so many.
        quiet: No progress.
        started: `time.perf_counter` when the app began.
    """

    title: str
    source: Source
    begin: Callable[[Frame], Any]
    stages: Callable[[Callable[[], int]], Sequence[Stage]]
    write: Callable[[Any], None]
    note: Callable[[Any], str]
    max_frames: int | None
    quiet: bool
    started: float

    def run(self) -> Counts:
        """Run until the source ends, the user stops, or `max_frames` are done."""
        from prunus.runtime.pipeline.pipeline import Pipeline

        frames, first_ms, interrupted, begin = 0, 0.0, False, time.perf_counter()
        pipeline: Pipeline
        stages = self.stages(lambda: pipeline.dropped)
        pipeline = Pipeline(self._input(), stages, live=self.source.info.live)
        progress: Any = ConsoleProgress(self.title)
        if self.quiet:
            progress = contextlib.nullcontext(Silent())
        with progress as shown, pipeline:
            try:
                for item in pipeline:
                    self.write(item.payload)
                    frames += 1
                    first_ms = first_ms or (time.perf_counter() - self.started) * 1000
                    rate = frames / max(time.perf_counter() - begin, 1e-6)
                    note = f"{rate:.1f} frames/s{self.note(item.payload)}"
                    shown.update(frames, self._total(), note)
                    if frames == self.max_frames:
                        break
            except Stop:
                pass
            except KeyboardInterrupt:
                interrupted = True
        times = tuple((t.name, t.p50_ms, t.p90_ms) for t in pipeline.times())
        seconds = time.perf_counter() - begin
        return Counts(frames, pipeline.dropped, seconds, first_ms, times, interrupted)

    def _input(self) -> Iterator[Any]:
        limit = None if self.source.info.live else self.max_frames
        return (self.begin(frame) for frame in itertools.islice(self.source, limit))

    def _total(self) -> int:
        known = [n for n in (self.source.info.frames, self.max_frames) if n]
        return min(known, default=0)


class Panel:
    """The numbers on the picture: model, steadied times of the stages, rate.

    Args:
        card: Of the model.
        info: Of the source; pictures have no rate.
    """

    def __init__(self, card: ModelCard, info: SourceInfo) -> None:
        self.card, self.info = card, info
        self._shown: dict[str, float] = {}
        self._last = 0.0

    def lines(
        self, stage_ms: Mapping[str, float], dropped: int, rare: Sequence[str] = ()
    ) -> list[str]:
        """Return the lines for one more frame.

        Args:
            stage_ms: Milliseconds by name, in the order of display.
            dropped: Frames dropped so far.
            rare: Stages whose zeros do not count: they run now and then only.
        """
        now = time.perf_counter()
        if self._last:
            self._steady("interval", (now - self._last) * 1000)
        self._last = now
        for name, value in stage_ms.items():
            if value or name not in rare:
                self._steady(name, value)
        shown, card = self._shown, self.card
        times = "  ".join(f"{name} {shown[name]:.1f}" for name in stage_ms if name in shown)
        lines = [f"{card.model} {card.variant}  {card.precision.precision}"]
        if card.tokens is not None:
            plan = card.tokens
            lines[0] = f"{card.model} {card.variant} {plan.level}"
            told = load(task_named(card.task).plan_summary)(plan)
            lines.append(f"{told}  {card.precision.precision}")
        lines.append(f"{times} ms")
        if self.info.kind not in _TIMELESS and "interval" in shown:
            rate = 1000 / max(shown["interval"], 1e-3)
            lines.append(f"{rate:.1f} fps  {dropped} dropped")
        return lines

    def _steady(self, name: str, value: float) -> None:
        old = self._shown.get(name, value)
        self._shown[name] = _STEADY * old + (1 - _STEADY) * value


def announce(
    card: ModelCard, where: str, reasons: Sequence[str], info: SourceInfo, sinks: Sequence[Sink]
) -> None:
    """Say what runs where and why, before the first frame."""
    print(f"{card.name} on {where}", file=sys.stderr)
    for line in reasons:
        print(f"  {line}", file=sys.stderr)
    print(f"{info.kind} {info.width}x{info.height} -> {', '.join(s.name for s in sinks)}",
          file=sys.stderr)  # fmt: skip


def check_outputs(source: str, outputs: Sequence[str], inputs: Sequence[Path] = ()) -> None:
    """Refuse outputs that would replace the source or another input file.

    Raises:
        UsageError: naming the path.
    """
    for uri in outputs:
        if uri and (_overwrites(source, uri) or any(_same(path, uri) for path in inputs)):
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


def _same(one: Path, other: Path | str) -> bool:
    return one.exists() and Path(other).exists() and one.samefile(other)


def default_sink(uri: str, info: SourceInfo, ending: str) -> str:
    """Return where frames go when nobody said so: beside us for files, a web page for the rest.

    Args:
        uri: The source.
        info: What is known about it.
        ending: What is put behind its name, e.g. ``pose``.
    """
    path = Path(urlsplit(uri).path if "://" in uri else uri)
    if info.kind == "folder":
        return f"{path.resolve().name}-{ending}/"
    if info.kind == "picture":
        return f"{path.stem}-{ending}{path.suffix}"
    return f"{path.stem}-{ending}.mp4" if info.kind == "video" else "web:8080"


def open_sinks(uris: Sequence[str], info: SourceInfo, stack: ExitStack) -> list[Sink]:
    """Open sinks that the stack closes, which makes their files complete."""
    return [stack.enter_context(closing(open_sink(uri, info))) for uri in uris]
