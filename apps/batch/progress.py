"""The bar of a long batch: what is done, how fast, and when it ends."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from prunus.runtime.command import Console
from prunus.runtime.progress import Progress


class _RichBar:
    """A bar of rich's, as `Progress`."""

    def __init__(self, title: str, shown: object) -> None:
        self._shown, self._title = shown, title
        self._task = shown.add_task(title, total=None, note="")  # type: ignore[attr-defined]

    def update(self, done: int, total: int, note: str = "") -> None:
        """See `Progress`."""
        self._shown.update(  # type: ignore[attr-defined]
            self._task, completed=done, total=total or None, note=note
        )


@contextlib.contextmanager
def bar(title: str, *, quiet: bool) -> Iterator[Progress]:
    """Yield a bar with the time that is left on a terminal; elsewhere what every verb shows."""
    if quiet or not sys.stderr.isatty():
        with Console(quiet=quiet).progress(title) as progress:
            yield progress
        return
    from rich import progress as rich
    from rich.console import Console as Terminal

    columns = (
        rich.TextColumn("{task.description}"), rich.BarColumn(), rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(), rich.TextColumn("left"), rich.TimeRemainingColumn(),
        rich.TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with rich.Progress(*columns, console=Terminal(stderr=True)) as shown:
        yield _RichBar(title, shown)
