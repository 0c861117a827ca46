"""The ``--log`` of a live run: JSON lines, in a file that may fail without stopping the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

from prunus.apps.common.json_list import JsonListWriter
from prunus.apps.io.sinks.outlets import Outlets


class LineLog:
    """A log, or none.

    Args:
        path: File of JSON lines; None for none.
        head: Its first line.
        stack: Owns the file.

    Raises:
        PrunusError: it cannot be written.
    """

    def __init__(self, path: Path | None, head: Mapping[str, Any], stack: ExitStack) -> None:
        self._files: Outlets[JsonListWriter] = Outlets(stack)
        if path is not None:
            opened = partial(JsonListWriter, path, "--log")
            self._files.add(str(path), lambda owned: owned.enter_context(closing(opened())))
        self.add(lambda: head)

    @property
    def there(self) -> bool:
        """Whether anybody reads what is added."""
        return bool(self._files.uris)

    def add(self, entry: Callable[[], Mapping[str, Any]]) -> None:
        """Add a line, which is made only where there is a log."""
        self._files.each(lambda file: file.add(entry()))

    def finish(self) -> None:
        """Complete the file."""
        self._files.finish(lambda file: None)

    def told(self) -> tuple[tuple[str, ...], list[str]]:
        """Return the name of the log, where there is a whole one, and why there is not."""
        return self._files.uris, self._files.failures(())
