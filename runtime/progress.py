"""Progress of anything that takes over a second: a bar, a line per 10 %, or silence."""

from __future__ import annotations

import sys
import time
from typing import Protocol, TextIO


class Progress(Protocol):
    """Receives the state of a long job; library code talks to this and never prints."""

    def update(self, done: int, total: int, note: str = "") -> None:
        """Report that `done` of `total` steps are finished (`total` 0: unknown)."""


class Silent:
    """Says nothing (``--quiet``, and the default of library calls)."""

    def update(self, done: int, total: int, note: str = "") -> None:
        """Do nothing."""


_TELLING_SECONDS = 20.0  # before that, the rest is anybody's guess


class ConsoleProgress:
    """A bar on a terminal, a line per 10 % elsewhere; writes to stderr.

    Example:
        >>> with ConsoleProgress("export") as progress:
        ...     progress.update(1, 4, "trace")
    """

    def __init__(self, title: str, stream: TextIO | None = None) -> None:
        self.title = title
        self.stream = stream or sys.stderr
        self.terminal = self.stream.isatty()
        self.started = time.monotonic()
        self._tenth = -1
        self._width = 0

    def __enter__(self) -> ConsoleProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.terminal and self._width:
            self.stream.write("\n")
            self.stream.flush()

    def update(self, done: int, total: int, note: str = "") -> None:
        """Draw the bar, or print a line when another tenth is done."""
        seconds = time.monotonic() - self.started
        if self.terminal:
            filled = 24 * done // total if total else 0
            share = f"{done}/{total}" if total else str(done)
            bar = "#" * filled + "." * (24 - filled)
            left = _left(done, total, seconds)
            text = f"{self.title} [{bar}] {share} {seconds:5.1f}s{left} {note}"
            self.stream.write("\r" + text.ljust(self._width))
            self._width = len(text)
            self.stream.flush()
            return
        tenth = 10 * done // total if total else done // 100
        if tenth > self._tenth:
            self._tenth = tenth
            share = f"{100 * done // total} %" if total else f"{done}"
            self.stream.write(f"{self.title}: {share} ({seconds:.1f} s) {note}".rstrip() + "\n")
            self.stream.flush()


def _left(done: int, total: int, seconds: float) -> str:
    """Return how long the rest will take, of what takes long enough to tell.

    >>> _left(30, 90, 60.0), _left(1, 90, 1.0)
    (', 2.0 min left', '')
    """
    if not 0 < done < total or seconds < _TELLING_SECONDS:
        return ""
    return f", {seconds * (total - done) / done / 60:.1f} min left"
