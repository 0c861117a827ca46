"""What a run over frames writes: drawn frames to sinks and results to files, each failing alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prunus.apps.io.frames import Frame, Sink, SourceInfo
from prunus.apps.io.rows import named
from prunus.apps.io.sinks.outlets import Outlets
from prunus.apps.io.sinks.registry import SINKS, Stop, open_sink
from prunus.runtime.audio.files import STDIO

NOWHERE = "null:"
Write = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class _Output:
    """One of them: how messages call it, and what takes each frame's work."""

    name: str
    write: Write


class Outputs:
    """The outputs of one run.

    Args:
        stack: Closes what is left, which makes the files complete, whatever ends the run.
    """

    def __init__(self, stack: ExitStack) -> None:
        self._outlets: Outlets[_Output] = Outlets(stack)
        self._asked: list[str] = []
        self._sinks: list[Sink[Frame]] = []

    def add(self, name: str, opener: Callable[[ExitStack], Write]) -> None:
        """Open a file of results.

        Args:
            name: As the user gave it.
            opener: Returns what takes each frame's work; enters what is to be closed.
        """
        self._outlets.add(name, lambda owned: _Output(name, opener(owned)))
        self._asked.append(name)

    def add_sinks(
        self,
        uris: Sequence[str],
        source: str,
        info: SourceInfo,
        *,
        ending: str,
        files: Sequence[object] = (),
        opener: Callable[[str, SourceInfo], Sink[Frame]] = open_sink,
    ) -> None:
        """Open the sinks of drawn frames; each takes `work.frame`.

        Args:
            uris: What the user gave.
            source: Of the frames.
            info: What is known about it.
            ending: What `default_sink` puts behind the source's name.
            files: Other outputs; where there is one and no sink was given, nothing is drawn.
            opener: Opens a sink.
        """
        asked = any(file is not None for file in files)
        for uri in uris or (NOWHERE if asked else default_sink(source, info, ending),):
            self._outlets.add(uri, partial(self._sink, opener, uri, info))
            self._asked.append(uri)

    def _sink(
        self,
        opener: Callable[[str, SourceInfo], Sink[Frame]],
        uri: str,
        info: SourceInfo,
        owned: ExitStack,
    ) -> _Output:
        sink = owned.enter_context(closing(opener(uri, info)))
        self._sinks.append(sink)
        return _Output(sink.name, lambda work: sink.write(work.frame, work.frame.image))

    @property
    def sinks(self) -> tuple[Sink[Frame], ...]:
        """The sinks of drawn frames, those that have failed too."""
        return tuple(self._sinks)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sinks of drawn frames."""
        return tuple(sink.name for sink in self._sinks)

    @property
    def draws(self) -> bool:
        """Whether anybody looks at the frames."""
        return any(name != NOWHERE for name in self.names)

    def write(self, work: Any) -> None:
        """Give a frame's work to all of them.

        Raises:
            Stop: the user closed the window, or the last output has failed.
        """
        self._outlets.each(lambda output: output.write(work))
        if self._outlets.lost and not self.written:
            raise Stop

    @property
    def written(self) -> tuple[str, ...]:
        """Names of those that have not failed."""
        names = (output.name for output in self._outlets.sinks)
        return tuple(name for name in names if name != NOWHERE)

    def finish(self) -> tuple[str, ...]:
        """Close them all; files take their names.

        Returns:
            A sentence for each that failed.

        Raises:
            PrunusError: why, where none is left.
            BrokenPipeError: the only output was a pipe whose reader had enough: nothing is wrong.
        """
        self._outlets.finish(lambda output: None)
        failures = self._outlets.failures([uri for uri in self._asked if uri != NOWHERE])
        if failures and not self.written:
            errors = self._outlets.errors
            raise next((e for e in errors if not isinstance(e, BrokenPipeError)), errors[0])
        return tuple(failures)


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


def own_path(uri: str, name: str) -> str:
    """Return where one of several sources goes, when the user named one place for all.

    Pages, windows, pipes and nowhere are shared.

    >>> own_path("out.mp4", "yard"), own_path("frames/", "yard"), own_path("web:8080", "yard")
    ('out-yard.mp4', 'frames/yard/', 'web:8080')
    """
    if uri == STDIO or named(SINKS, uri, "frames") is not None:
        return uri
    path = Path(uri)
    if uri.endswith("/") or path.is_dir() or not path.suffix:
        return f"{path / name}/"
    return str(path.with_name(f"{path.stem}-{name}{path.suffix}"))
