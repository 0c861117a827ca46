"""Entries on disk or in a pipe, streamed one by one: a JSON list, lines of JSON, or a table.

=============  ====================================================================
``out.json``   one JSON list; the file gets its name, whole and valid, when it is closed
``out.jsonl``  one JSON object a line, whole at any time: others may read along
``out.csv``    a table with a head line; nested values become columns ``name_0``, ``name_x``
``-``          lines of JSON on standard output
=============  ====================================================================
"""

from __future__ import annotations

import csv
import io
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from prunus.apps.io.sinks.registry import require_space
from prunus.runtime.card.artifact import write_error
from prunus.runtime.errors import SourceError
from prunus.runtime.json_text import json_text

PIPE = Path("-")
_ENDINGS = (".json", ".jsonl", ".csv")


class JsonListWriter:
    """Write entries as they come, in the form that the ending of the path says.

    Args:
        path: File, or ``-`` for standard output.
        flag: For messages.
        common: What every entry begins with.

    Raises:
        SourceError: another ending, or the folder cannot be written.
        HostError: the disk is full.
    """

    def __init__(
        self, path: Path, flag: str = "--json-out", common: Mapping[str, Any] | None = None
    ) -> None:
        self._path, self.entries, self._closed = path, 0, False
        self._common = common or {}
        self._ending = ".jsonl" if path == PIPE else path.suffix.lower()
        self._columns: list[str] = []
        self._temporary: Path | None = None
        if self._ending not in _ENDINGS:
            raise SourceError(
                f"Got {flag} {path}; expected a .json file, one that ends in .jsonl or .csv, or - "
                "for lines of JSON on standard output.",
                f"Example: {flag} a.json",
            )
        try:
            self._file = self._opened(path)
        except OSError as error:
            raise write_error(error, path) from None

    def _opened(self, path: Path) -> IO[str]:
        if path == PIPE:
            return sys.stdout
        require_space(path)
        if self._ending == ".jsonl":
            return path.open("w", encoding="utf-8")
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem}-", suffix=self._ending, dir=path.parent
        )
        self._temporary = Path(name)
        file = os.fdopen(handle, "w", encoding="utf-8", newline="")
        if self._ending == ".json":
            file.write("[")
        return file

    def add(self, entry: Mapping[str, Any]) -> None:
        """Add one entry.

        Raises:
            SourceError: the disk refuses it; HostError: it is full.
            BrokenPipeError: who read the pipe has gone.
        """
        try:
            self._file.write(self._text({**self._common, **entry}))
            if self._ending == ".jsonl":
                self._file.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise write_error(error, self._path) from None
        self.entries += 1

    def _text(self, entry: Mapping[str, Any]) -> str:
        if self._ending == ".csv":
            return self._cells(entry)
        text = json_text(entry)
        if self._ending == ".jsonl":
            return f"{text}\n"
        return f"\n{text}" if self.entries == 0 else f",\n{text}"

    def _cells(self, entry: Mapping[str, Any]) -> str:
        flat = dict(_flattened(entry))
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        if not self._columns:
            self._columns = self.columns(flat)
            rows.writerow(self._columns)
        if strange := sorted(set(flat) - set(self._columns)):
            raise SourceError(
                f"{self._path} has no column for {', '.join(strange[:3])}.",
                "Write entries that differ in their fields with the ending .jsonl",
            )
        rows.writerow([flat.get(name, "") for name in self._columns])
        return text.getvalue()

    def columns(self, first: Mapping[str, Any]) -> list[str]:
        """Return the columns of a table, by its first row."""
        return list(first)

    def close(self) -> None:
        """Complete the output; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        if self._path == PIPE:
            return
        try:
            if self._ending == ".json":
                self._file.write("\n]\n")
            self._file.flush()
            self._file.close()
            if self._temporary is not None:
                mask = os.umask(0)
                os.umask(mask)
                self._temporary.chmod(0o666 & ~mask)
                self._temporary.replace(self._path)
        except OSError as error:
            raise write_error(error, self._path) from None
        finally:
            if self._temporary is not None:
                self._temporary.unlink(missing_ok=True)


def _flattened(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        parts = [(str(key), one) for key, one in value.items()]
    elif isinstance(value, list | tuple):
        parts = [(str(index), one) for index, one in enumerate(value)]
    else:
        yield name, value
        return
    for key, one in parts:
        yield from _flattened(one, f"{name}_{key}" if name else key)
