"""What every live app shares: the loop over frames, and the numbers on the picture.

An app brings its stages; capture, dropping of late frames, progress, Ctrl-C and the summary's
counts are the same for all.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunus.apps.io.frames import Frame, SourceInfo
from prunus.apps.io.sinks.registry import Stop
from prunus.apps.live.controls import PAUSED, Controls
from prunus.apps.live.feeds import Feed, Feeds, Round, feed_names
from prunus.apps.live.outputs import own_path
from prunus.runtime.command import Console
from prunus.runtime.errors import UsageError
from prunus.runtime.pictures.files import PICTURES
from prunus.runtime.references import load
from prunus.runtime.tasks.registry import task_named

if TYPE_CHECKING:
    from prunus.apps.common.options import BackendChoice
    from prunus.runtime.card.card import ModelCard
    from prunus.runtime.pipeline.pipeline import Stage
    from prunus.runtime.session.base import Session

_STEADY = 0.9  # share of the old value in the numbers on screen, so that they can be read


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """A loop over what a source gives: frames, moments of sound and picture, blocks of sound.

    Attributes:
        title: Name of the app, for the progress line.
        items: What goes through the stages.
        live: Items come in their own time, so that a newer one replaces one that is late.
        stages: What becomes of an item, step by step.
        write: Takes each item that comes out, and the milliseconds of each stage by name.
        note: What the progress line says, by item and items per second.
        controls: What people may change meanwhile, which may hold items up; None for nothing.
        expected: How many items to expect, 0 when unknown.
        limit: Stop after so many.
        depth: Items that may wait between two stages of a source that waits.
        replace: As for a `Pipeline`.
        quiet: No progress.
        started: `time.perf_counter` when the app began.
    """

    title: str
    items: Iterable[Any]
    live: bool
    stages: Sequence[Stage]
    write: Callable[[Any, Mapping[str, float]], None]
    note: Callable[[Any, float], str]
    controls: Controls | None = None
    expected: int = 0
    limit: int | None = None
    depth: int = 2
    replace: Callable[[Any, Any], int] = lambda old, new: 1
    quiet: bool = False
    started: float = 0.0

    def run(self) -> Counts:
        """Run until the source ends, the user stops, or `limit` items are done."""
        from prunus.runtime.pipeline.pipeline import Pipeline

        done, first_ms, interrupted, begin = 0, 0.0, False, time.perf_counter()
        total = min((n for n in (self.expected, self.limit) if n), default=0)
        items, controls = self.items, self.controls
        if controls is not None:
            items = controls.gate(items, live=self.live)
            if not self.quiet:
                controls.on_change.append(_pause_teller(controls))
        items = itertools.islice(items, None if self.live else self.limit)
        pipeline = Pipeline(
            items, self.stages, live=self.live, depth=self.depth, replace=self.replace
        )
        with Console(quiet=self.quiet).progress(self.title) as shown, pipeline:
            try:
                for item in pipeline:
                    self.write(item.payload, item.stage_ms)
                    done += 1
                    first_ms = first_ms or (time.perf_counter() - self.started) * 1000
                    rate = done / max(time.perf_counter() - begin, 1e-6)
                    # A container may hold more than it says.
                    shown.update(min(done, total or done), total, self.note(item.payload, rate))
                    if done == self.limit:
                        break
            except Stop:
                pass
            except KeyboardInterrupt:
                interrupted = True
            finally:
                if controls is not None:
                    controls.close()
        times = tuple((t.name, t.p50_ms, t.p90_ms) for t in pipeline.times())
        seconds = time.perf_counter() - begin
        return Counts(done, pipeline.dropped, seconds, first_ms, times, interrupted)


def _pause_teller(controls: Controls) -> Callable[[], None]:
    """Return what says when somebody at a page stops the run: here nothing else would."""
    told = False

    def tell() -> None:
        nonlocal told
        paused = bool(controls.values().get(PAUSED))
        if paused != told:
            told = paused
            print("Paused from a page." if paused else "It goes on.", file=sys.stderr)

    return tell


def run_frames(
    feeds: Feeds,
    begin: Callable[[Frame], Any],
    write: Callable[[Feed, Any, Mapping[str, float]], None],
    *,
    stride: int = 1,
    limit: int | None = None,
    **details: Any,
) -> Counts:
    """Run a loop over rounds of frames, until all sources end or nobody wants more.

    Args:
        feeds: The sources.
        begin: Wraps a frame for the stages, which get rounds of what it returns.
        write: Takes what became of a frame of a source, and the milliseconds of each stage.
        stride: Every so many frames of each source are taken.
        limit: Frames that are wanted of each source; None for all.
        details: Of the `Loop`.
    """

    def deliver(made: Round, stage_ms: Mapping[str, float]) -> None:
        feeds.deliver(made, lambda feed, work: write(feed, work, stage_ms), limit)

    counts = Loop(
        items=feeds.rounds(begin, stride),
        live=feeds.live,
        expected=feeds.expected(stride),
        # A round of several live sources need not hold a frame of each.
        limit=limit if feeds.alone or not feeds.live else None,
        replace=feeds.replace,
        write=deliver,
        **details,
    ).run()
    return dataclasses.replace(counts, frames=feeds.frames, dropped=feeds.dropped)


def each(work: Callable[[int, Any], None]) -> Callable[[Round], Round]:
    """Return the stage that does something with each frame of a round, by its source's number."""

    def stage(made: Round) -> Round:
        for number in sorted(made):
            work(number, made[number])
        return made

    return stage


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
        self,
        stage_ms: Mapping[str, float],
        dropped: int,
        rare: Sequence[str] = (),
        more: Sequence[str] = (),
    ) -> list[str]:
        """Return the lines for one more frame; `card` may be set to that of another variant.

        Args:
            stage_ms: Milliseconds by name, in the order of display.
            dropped: Frames dropped so far.
            rare: Stages whose zeros do not count: they run now and then only.
            more: Lines of the app itself.
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
            lines[0] = f"{card.model} {card.variant} {card.tokens.level}"
            told = load(task_named(card.task).plan_summary)(card.tokens)
            lines.append(f"{told}  {card.precision.precision}")
        lines.append(f"{times} ms")
        if not self.info.still and "interval" in shown:
            rate = 1000 / max(shown["interval"], 1e-3)
            lines.append(f"{rate:.1f} fps  {dropped} dropped")
        return [*lines, *more]

    def _steady(self, name: str, value: float) -> None:
        old = self._shown.get(name, value)
        self._shown[name] = _STEADY * old + (1 - _STEADY) * value


def announce(
    session: Session,
    infos: Sequence[SourceInfo],
    names: Sequence[str],
    compute: BackendChoice,
    reasons: Sequence[str] = (),
) -> None:
    """Say what runs where and why, before the first frame.

    Args:
        session: Of the model.
        infos: Of the sources.
        names: Of the sinks.
        compute: What the user asked for; why a back end was chosen is said where nothing was.
        reasons: What else there is to say.
    """
    chosen = session.choice if compute.backend == "auto" else ()
    came = ", ".join(f"{info.kind} {info.width}x{info.height}" for info in infos)
    for line in (f"{session.card.name} on {session.description}",
                 *(f"  {reason}" for reason in (*reasons, *chosen)),
                 f"{came} -> {', '.join(dict.fromkeys(names))}"):  # fmt: skip
        print(line, file=sys.stderr)


def check_outputs(
    sources: Sequence[str], outputs: Sequence[str], inputs: Sequence[Path] = ()
) -> None:
    """Refuse outputs that would replace a source or another input file.

    Args:
        sources: As the user gave them; of several, each has outputs of its own.
        outputs: As the user gave them.
        inputs: Other files that are read.

    Raises:
        UsageError: naming the path.
    """
    if len(sources) > 1:
        outputs = [own_path(uri, name) for uri in outputs if uri for name in feed_names(sources)]
    for uri in outputs:
        taken = any(_overwrites(source, uri) for source in sources)
        if uri and (taken or any(_same(path, uri) for path in inputs)):
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
