"""The sinks of one run: each owns its file or device, and fails alone.

A full disk, a reader of a pipe that has gone, an unplugged speaker: the others still get all of it.
What a sink that failed had written is removed, unless it went to a pipe or the air, or is whole so
far: a video with the frames until then.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

from prunus.runtime.audio.files import STDIO
from prunus.runtime.card.artifact import write_error
from prunus.runtime.errors import PrunusError

Sink = TypeVar("Sink")
GONE = "The reader of standard output has gone"


@dataclass(frozen=True, slots=True)
class _Outlet(Generic[Sink]):
    """A sink with what it owns."""

    uri: str
    sink: Sink
    owned: ExitStack


class Outlets(Generic[Sink]):
    """Sinks by the names that the user gave.

    Args:
        stack: Closes what is left, with the exception that ends the run.

    Attributes:
        errors: Why sinks failed, in order.
    """

    def __init__(self, stack: ExitStack) -> None:
        self._failures: list[str] = []
        self._lost: list[str] = []
        self.errors: list[PrunusError | BrokenPipeError] = []
        self._gone: BrokenPipeError | None = None
        self._open: list[_Outlet[Sink]] = []
        stack.push(self._leave)

    def add(self, uri: str, opener: Callable[[ExitStack], Sink]) -> None:
        """Open a sink; what it enters into the stack is closed with it."""
        with ExitStack() as owned:
            sink = opener(owned)
            self._open.append(_Outlet(uri, sink, owned.pop_all()))

    @property
    def sinks(self) -> tuple[Sink, ...]:
        """Those that have not failed."""
        return tuple(outlet.sink for outlet in self._open)

    @property
    def uris(self) -> tuple[str, ...]:
        """Names of those that have not failed."""
        return tuple(outlet.uri for outlet in self._open)

    @property
    def lost(self) -> tuple[str, ...]:
        """Names of those that have failed."""
        return tuple(self._lost)

    def each(self, action: Callable[[Sink], None]) -> None:
        """Do something with every sink; one that fails is closed, and the others go on."""
        for outlet in tuple(self._open):
            try:
                action(outlet.sink)
            except (PrunusError, OSError) as error:
                self._drop(outlet, error)

    def finish(self, action: Callable[[Sink], None]) -> None:
        """End every sink; files take their names."""
        self.each(action)
        for outlet in tuple(self._open):
            try:
                outlet.owned.close()
            except (PrunusError, OSError) as error:
                self._drop(outlet, error)

    def failures(self, uris: Sequence[str]) -> list[str]:
        """Return a sentence for each sink that failed, in order.

        Args:
            uris: All sinks of the run.

        Raises:
            BrokenPipeError: the only sink was a pipe, whose reader had enough: nothing is wrong.
        """
        if self._gone is not None:
            if list(uris) == [STDIO]:
                raise self._gone
            # What waits for the reader must not stop the program at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return self._failures

    def _drop(self, outlet: _Outlet[Sink], error: PrunusError | OSError) -> None:
        self._open.remove(outlet)
        self._lost.append(outlet.uri)
        with contextlib.suppress(PrunusError, OSError):
            outlet.owned.__exit__(type(error), error, error.__traceback__)
        if isinstance(error, BrokenPipeError):
            self._gone = error
            self.errors.append(error)
            self._failures.append(GONE)
            return
        if not isinstance(error, PrunusError):
            error = write_error(error, "standard output" if outlet.uri == STDIO else outlet.uri)
        self.errors.append(error)
        self._failures.append(error.message.rstrip("."))

    def _leave(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for outlet in self._open:
            with contextlib.suppress(PrunusError, OSError):
                outlet.owned.__exit__(kind, value, trace)
