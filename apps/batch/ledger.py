"""Which inputs have a result: exactly one each, whole, of this very file; or the reason why not."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.apps.batch.inputs import Input
from prunus.apps.batch.shards import FIRST, LAST, QUARANTINE, Columns, read_facts, write_shard
from prunus.apps.batch.storage import Store
from prunus.apps.batch.task import Found
from prunus.runtime.errors import ArtifactError, PrunusError

RESULTS, ASIDE, MEDIA, BEGUN = "results", "quarantine", "media", "_begun"
MOST_TRIES = 3  # times that a worker may die over an input


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an input.

    Attributes:
        name: The input's.
        rows: Of its result.
        reason: Why it was set aside, empty where it was not.
        earlier: Whether it was there already.
        notes: What was odd about it.
    """

    name: str
    rows: int = 0
    reason: str = ""
    earlier: bool = False
    notes: tuple[str, ...] = ()


def all_columns(columns: Columns) -> Columns:
    """Return the columns of a task's results, with those that all tasks have."""
    return (*FIRST, *columns, *LAST)


class Ledger:
    """The results of a run.

    Args:
        store: Its folder.
        same: Values that are the same in all rows.
        columns: Of the task.
        run: Tells this run of the program from others, for what was begun.
    """

    def __init__(
        self, store: Store, same: Mapping[str, str], columns: Columns = (), run: str = ""
    ) -> None:
        self.store, self._same, self._run = store, same, run
        self._columns = all_columns(columns)

    def outcome(self, one: Input, there: Mapping[str, set[str]] | None = None) -> Outcome | None:
        """Return what became of an input, None where it is still to be done.

        Args:
            one: The input.
            there: Names in the folders, where they were listed.

        Raises:
            ArtifactError: there is a result, but it is damaged, or the input has changed since.
            SourceError: the storage cannot be read.
        """
        for folder, columns in ((RESULTS, self._columns), (ASIDE, QUARANTINE)):
            name = f"{one.key}.parquet"
            found = name in there[folder] if there else self.store.there(f"{folder}/{name}")
            if not found:
                continue
            with self.store.read(f"{folder}/{name}") as path:
                facts = read_facts(path, columns)
            if (facts.get("size"), facts.get("modified_ns")) != (one.size, one.modified_ns):
                raise ArtifactError("The input has changed since.")
            reason, notes = str(facts.get("reason", "")), tuple(facts.get("notes", ()))
            return Outcome(one.name, 0 if reason else facts["rows"], reason, True, notes)
        return None

    def finish(self, one: Input, found: Found, media: Path | None) -> Outcome:
        """Keep a result: first what there is to see or hear, then the rows that stand for it all.

        Raises:
            SourceError: the storage refuses it.
        """
        facts = {**found.facts, "notes": found.notes}
        if media is not None and media.is_file():
            facts["media"] = f"{MEDIA}/{one.key}{media.suffix}"
            self.store.put(media, facts["media"])
        rows = self._write(RESULTS, one, self._columns, found.rows, facts)
        self.store.remove(f"{ASIDE}/{one.key}.parquet")
        return Outcome(one.name, rows, notes=found.notes)

    def set_aside(self, one: Input, error: PrunusError) -> Outcome:
        """Keep why an input has no result; raises SourceError."""
        row = {"reason": error.message, "hint": error.hint}
        self._write(ASIDE, one, QUARANTINE, [row], {"reason": error.message})
        self.store.remove(f"{RESULTS}/{one.key}.parquet")
        return Outcome(one.name, reason=error.message)

    def _write(
        self, folder: str, one: Input, columns: Columns, rows: Any, facts: Mapping[str, Any]
    ) -> int:
        whole = {
            **facts, **self._same,
            "input": one.name, "size": one.size, "modified_ns": one.modified_ns,
        }  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="prunus-") as draft:
            path = Path(draft) / "shard.parquet"
            count = write_shard(path, columns, rows, {**self._same, "input": one.name}, whole)
            self.store.put(path, f"{folder}/{one.key}.parquet")
        return count

    def begin(self, one: Input, before: int) -> None:
        """Write down that an input is begun, after `before` times at which its worker died."""
        self.store.put_text(f"{one.name}\n", f"{BEGUN}/{one.key}.{self._run}.{before}")

    def end(self, one: Input, before: int) -> None:
        """Take that back: the worker is alive."""
        for number in range(before + 1):
            self.store.remove(f"{BEGUN}/{one.key}.{self._run}.{number}")

    def begun(self) -> dict[str, int]:
        """Return how often inputs were begun in this run and not ended, by their keys."""
        counts: dict[str, int] = {}
        for name in self.store.files(BEGUN):
            key, run, _ = name.rsplit(".", 2)
            if run == self._run:
                counts[key] = counts.get(key, 0) + 1
        return counts

    def leftover(self) -> list[str]:
        """Return the inputs over which earlier runs ended, and forget them."""
        names = sorted(self.store.files(BEGUN))
        found = []
        for name in names:
            with self.store.read(f"{BEGUN}/{name}") as path:
                found.append(path.read_text(encoding="utf-8").strip())
            self.store.remove(f"{BEGUN}/{name}")
        return sorted(set(found))
