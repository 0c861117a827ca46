"""A JSON list on disk, streamed entry by entry and complete whenever it is closed."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from prunus.apps.io.sinks.registry import require_space
from prunus.runtime.card.artifact import write_error
from prunus.runtime.errors import SourceError


class JsonListWriter:
    """Write entries as they come; the file gets its name, whole and valid, when it is closed.

    Args:
        path: JSON file.

    Raises:
        SourceError: another ending, or the folder cannot be written.
        HostError: the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self._path, self.entries, self._closed = path, 0, False
        if path.suffix.lower() != ".json":
            raise SourceError(
                f"Got --json-out {path}; expected a .json file.", "Example: --json-out a.json"
            )
        try:
            handle, name = tempfile.mkstemp(
                prefix=f".{path.stem}-", suffix=".json", dir=path.parent
            )
            self._temporary = Path(name)
            self._file: IO[str] = os.fdopen(handle, "w", encoding="utf-8")
            require_space(path)
            self._file.write("[")
        except OSError as error:
            raise write_error(error, path) from None

    def add(self, entry: Mapping[str, Any]) -> None:
        """Add one entry; raises SourceError or HostError when the disk refuses it."""
        try:
            self._file.write("\n" if self.entries == 0 else ",\n")
            self._file.write(json.dumps(entry, sort_keys=True))
            self.entries += 1
        except OSError as error:
            raise write_error(error, self._path) from None

    def close(self) -> None:
        """End the list and give the file its name; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        try:
            self._file.write("\n]\n")
            self._file.flush()
            self._file.close()
            mask = os.umask(0)
            os.umask(mask)
            self._temporary.chmod(0o666 & ~mask)
            self._temporary.replace(self._path)
        except OSError as error:
            raise write_error(error, self._path) from None
        finally:
            self._temporary.unlink(missing_ok=True)
