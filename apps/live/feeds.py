"""Several sources in one run: rounds of one frame of each, and every source for itself.

A round holds at most one frame of each source, so that one run of a network can serve them all.
Files give a frame each per round. Live sources give what is newest: a later round that replaces one
that nobody took yet takes over the frames of sources that have none newer. A source that ends or
breaks leaves the others alone; with one source everything is as without this.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prunus.apps.io.frames import Frame, Sink, Source, SourceInfo
from prunus.apps.io.sinks.outlets import GONE
from prunus.apps.io.sinks.registry import Stop
from prunus.apps.io.sources.registry import open_source
from prunus.apps.live.outputs import Outputs, Write, own_path
from prunus.apps.live.pages import shown_source
from prunus.apps.live.summary import SourceRow
from prunus.runtime.errors import PrunusError, UsageError
from prunus.runtime.pipeline.queue import END, Channel

Round = Mapping[int, Any]  # number of a source -> what became of its frame


class Feed:
    """One source of a run.

    Args:
        number: Its place among the sources that could be opened.
        uri: As the user gave it.
        name: Tells it from the others, in names of files and on screen.
        source: Opened.
        stack: Completes its outputs, whatever ends the run.
        alone: Whether it is the only one.

    Attributes:
        frames: How many came out.
        dropped: How many a newer one replaced.
        outputs: Where its frames go.
        skipped: Why frames were left out.
        stopped: Nobody wants more of it.
        gone: Its only output was a pipe, whose reader had enough.
        error: What broke it, None for nothing.
    """

    def __init__(
        self,
        number: int,
        uri: str,
        name: str,
        source: Source[Frame],
        stack: ExitStack,
        *,
        alone: bool,
    ) -> None:
        self.number, self.uri, self.name, self.source = number, uri, name, source
        self.alone = alone
        self.info: SourceInfo = source.info
        self.outputs = Outputs(stack)
        self.frames = self.dropped = 0
        self.error: PrunusError | None = None
        self._read = 0
        self._ended = False  # no more of it is read
        self.stopped = False
        self.skipped: list[str] = []
        self.gone = False
        self._failures: tuple[str, ...] | None = None

    def add_sinks(
        self,
        uris: Sequence[str],
        ending: str,
        files: Sequence[object],
        opener: Callable[[str, SourceInfo], Sink[Frame]],
    ) -> None:
        """Open its sinks of drawn frames; the arguments are those of `Outputs.add_sinks`."""
        own = uris if self.alone else [own_path(uri, self.name) for uri in uris]
        known_as = self.uri if self.alone else f"{self.name}{Path(urlsplit(self.uri).path).suffix}"
        self.outputs.add_sinks(own, known_as, self.info, ending=ending, files=files, opener=opener)

    def add_file(
        self, path: Path, opener: Callable[[Path, Mapping[str, str], ExitStack], Write]
    ) -> None:
        """Open a file of results.

        Args:
            path: As the user gave it; of several sources, each has its own.
            opener: As of `Outputs.add`; gets the path and what every entry begins with, too.
        """
        own = path if self.alone else Path(own_path(str(path), self.name))
        common = {} if self.alone else {"source": self.name}
        self.outputs.add(str(own), partial(opener, own, common))

    @property
    def done(self) -> bool:
        """Whether its last frame has come out."""
        return self._ended and self.frames + self.dropped + len(self.skipped) >= self._read

    def next(self, frames: Iterator[Frame]) -> Frame | None:
        """Return the next frame, None at the end; what breaks it is raised where it is alone."""
        try:
            frame = None if self.stopped else next(frames, None)
        except PrunusError as error:
            if self.alone:
                raise
            self.error, frame = error, None
        if frame is None:
            self._ended = True
        else:
            self._read += 1
        return frame

    def stop(self) -> None:
        """Read no more of it."""
        self.stopped = True
        if self.info.live:
            self.source.close()

    def finish(self) -> tuple[str, ...]:
        """Complete its outputs, once; return a sentence for each that failed.

        Raises:
            PrunusError, BrokenPipeError: none is left, and the source is alone.
        """
        if self._failures is None:
            self._failures = ()
            try:
                self._failures = self.outputs.finish()
            except (PrunusError, BrokenPipeError) as error:
                if self.alone:
                    raise
                self.gone = isinstance(error, BrokenPipeError)
                message = error.message.rstrip(".") if isinstance(error, PrunusError) else GONE
                self._failures = (message,)
        return self._failures

    def warnings(self) -> tuple[str, ...]:
        """Return what went wrong without ending the run."""
        broken = () if self.error is None else (self.error.message.rstrip("."),)
        told = (*self.source.warnings, *self.skipped, *broken, *(self._failures or ()))
        return tuple(dict.fromkeys(told))


class Feeds:
    """The sources of a run, opened; iterate `rounds`, then `deliver` what became of them.

    Args:
        uris: As the user gave them.
        stack: Closes them.
        reconnect: Open a network stream again when it breaks off.
        quiet: Say nothing on standard error.

    Raises:
        PrunusError: none can be opened, or files and live sources are mixed.

    Attributes:
        open: Those that could be opened.
        alone: Whether the user named one alone.
    """

    def __init__(
        self, uris: Sequence[str], stack: ExitStack, *, reconnect: bool = True, quiet: bool = False
    ) -> None:
        self.open: list[Feed] = []
        self._missing: list[tuple[str, str]] = []  # name and reason of those that could not
        self._quiet, self._lock = quiet, threading.Lock()
        self._fault: BaseException | None = None
        self._rounds = 0
        self.alone = len(uris) == 1
        if not uris:
            raise UsageError("Got no source.", "Give one: --source 0")
        for uri, name in zip(uris, feed_names(uris), strict=True):
            try:
                source = open_source(uri, reconnect=reconnect)
            except PrunusError as error:
                if len(uris) == len(self._missing) + 1:  # none is left
                    raise
                self._missing.append((name, error.message.rstrip(".")))
                self._say(name, f"{error.message} {error.hint}".strip())
                continue
            stack.enter_context(closing(source))
            self.open.append(Feed(len(self.open), uri, name, source, stack, alone=self.alone))
        self.live = self.open[0].info.live
        if odd := [feed for feed in self.open if feed.info.live != self.live]:
            one, other = sorted((self.open[0], odd[0]), key=lambda f: f.info.live)
            raise UsageError(
                f"Got {shown_source(one.uri)}, which waits, and {shown_source(other.uri)}, which "
                "does not.",
                "Run files and live sources apart.",
            )

    @property
    def infos(self) -> list[SourceInfo]:
        """What is known of those that could be opened."""
        return [feed.info for feed in self.open]

    @property
    def names(self) -> list[str]:
        """Names of those that could be opened."""
        return [feed.name for feed in self.open]

    @property
    def sinks(self) -> list[str]:
        """Names of all sinks of drawn frames."""
        return [name for feed in self.open for name in feed.outputs.names]

    @property
    def frames(self) -> int:
        """Frames that came out, of all."""
        return sum(feed.frames for feed in self.open)

    @property
    def dropped(self) -> int:
        """Frames that a newer one replaced, of all."""
        return sum(feed.dropped for feed in self.open)

    def rate(self, rounds: float) -> str:
        """Return how fast frames come out, for people; `rounds`: of rounds a second."""
        return f"{rounds * self.frames / max(self._rounds, 1):.1f} frames/s"

    def expected(self, stride: int) -> int:
        """Return how many rounds to expect, 0 when unknown."""
        rounds = [-(-feed.info.frames // stride) for feed in self.open]
        return max(rounds) if all(rounds) else 0

    def rounds(self, begin: Callable[[Frame], Any], stride: int) -> Iterator[dict[int, Any]]:
        """Yield rounds of every `stride`-th frame of each; `begin` wraps a frame for the stages."""
        frames = {feed.number: islice(feed.source, 0, None, stride) for feed in self.open}
        if self.live and len(self.open) > 1:
            yield from self._newest(begin, frames)
            return
        while frames:
            made = {}
            for number in list(frames):
                frame = self.open[number].next(frames[number])
                if frame is None:
                    del frames[number]
                    self._tell_broken(self.open[number])
                else:
                    made[number] = begin(frame)
            if made:
                yield made

    def replace(self, old: Round, new: dict[int, Any]) -> int:
        """Let a round take over what an older one has of other sources; return what is lost."""
        lost = old.keys() & new.keys()
        with self._lock:
            for number in lost:
                self.open[number].dropped += 1
        new |= {number: work for number, work in old.items() if number not in lost}
        return len(lost)

    def deliver(self, made: Round, write: Callable[[Feed, Any], None], limit: int | None) -> None:
        """Write what became of a round, and complete the outputs of sources that are done.

        Args:
            made: The round.
            write: Takes what became of one frame.
            limit: Frames that are wanted of each live source; None for all.

        Raises:
            Stop: nobody wants more of any.
        """
        self._rounds += 1
        for number in sorted(made):
            feed = self.open[number]
            try:
                if not feed.stopped:
                    write(feed, made[number])
            except Stop:
                self._stop(feed)
            feed.frames += 1
            if limit is not None and feed.frames >= limit and self.live and not self.alone:
                self._stop(feed)
        if not self.alone:
            for feed in self.open:
                if feed.done:
                    feed.finish()
        if all(feed.stopped for feed in self.open):
            raise Stop

    def finish(self) -> None:
        """Complete all outputs.

        Raises:
            PrunusError: why, where the only source has no output left.
            BrokenPipeError: the reader of the only output, of each source, had enough.
        """
        for feed in self.open:
            feed.finish()
        if all(feed.gone for feed in self.open):
            raise BrokenPipeError

    def rows(self, facts: Callable[[Feed], dict[str, Any]]) -> tuple[SourceRow, ...]:
        """Return what became of each source; none where there was only one."""
        if self.alone:
            return ()
        missing = [SourceRow(name=name, warnings=(reason,)) for name, reason in self._missing]
        return (*missing, *(
            SourceRow(
                name=feed.name, frames=feed.frames, dropped=feed.dropped, facts=facts(feed),
                outputs=feed.outputs.written, warnings=feed.warnings(),
            )
            for feed in self.open
        ))  # fmt: skip

    def outputs(self) -> tuple[str, ...]:
        """Return what was written."""
        return tuple(dict.fromkeys(name for feed in self.open for name in feed.outputs.written))

    def warnings(self) -> tuple[str, ...]:
        """Return what went wrong; of several sources, with their names."""
        if self.alone:
            return self.open[0].warnings()
        pairs = [*self._missing, *((f.name, line) for f in self.open for line in f.warnings())]
        return tuple(dict.fromkeys(f"{name}: {line}" for name, line in pairs))

    def _newest(
        self, begin: Callable[[Frame], Any], frames: Mapping[int, Iterator[Frame]]
    ) -> Iterator[dict[int, Any]]:
        """Yield what is newest of live sources, each read in a thread of its own."""
        slot = Channel(1, newest=True, replace=self.replace)
        left = set(frames)

        def read(feed: Feed) -> None:
            try:
                while (frame := feed.next(frames[feed.number])) is not None:
                    if not slot.put({feed.number: begin(frame)}):
                        return
                self._tell_broken(feed)
            except BaseException as error:  # a fault of ours: raised where rounds are taken
                self._fault = error
                slot.close()
            finally:
                with self._lock:
                    left.discard(feed.number)
                    last = not left
                if last:
                    slot.close()

        threads = [
            threading.Thread(target=partial(read, feed), name=feed.name, daemon=True)
            for feed in self.open
        ]
        for thread in threads:
            thread.start()
        try:
            while (made := slot.get()) is not END:
                yield made
        finally:
            slot.abort()
        if self._fault is not None:
            raise self._fault

    def _stop(self, feed: Feed) -> None:
        if self.alone:
            raise Stop
        feed.stop()

    def _tell_broken(self, feed: Feed) -> None:
        if feed.error is not None:
            self._say(feed.name, feed.error.message)

    def _say(self, name: str, text: str) -> None:
        if not self._quiet:
            print(f"{name}: {text}", file=sys.stderr)


def feed_names(uris: Sequence[str]) -> list[str]:
    """Return a short name for each source, fit for names of files; all differ.

    >>> feed_names(["a/street.mp4", "b/street.mp4", "rtsp://me:secret@yard:554/1?key=2", "0"])
    ['street', 'street-2', 'yard-554-1', 'camera-0']
    """
    names: list[str] = []
    for uri in uris:
        shown = shown_source(uri)
        if "://" in shown:
            shown = shown.partition("://")[2].rpartition("@")[2]
        elif ":" not in shown:
            shown = re.sub(r"(?<=.)\.[A-Za-z0-9]{1,5}$", "", shown)
        plain = re.sub(r"[^\w.-]+", "-", shown).strip("-.") or "source"
        name, count = plain, 1
        while name in names:
            count += 1
            name = f"{plain}-{count}"
        names.append(name)
    return names
