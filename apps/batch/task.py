"""What a task brings to a batch: its models, and what one input gives."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from prunus.apps.batch.options import Work
from prunus.apps.batch.shards import Columns
from prunus.apps.batch.together import Seat, Together
from prunus.apps.common.options import BackendChoice
from prunus.runtime.card.artifact import sha256_of


class BatchOptions(Protocol):
    """The options of any task's batch."""

    @property
    def work(self) -> Work:
        """What all of them have."""

    @property
    def compute(self) -> BackendChoice:
        """Which back end computes."""


@dataclass(frozen=True, slots=True)
class Found:
    """What an input gave.

    Attributes:
        rows: Values by column.
        facts: What holds for the whole input.
        notes: What was odd about it.
        faults: Why it is set aside, empty where nothing was wrong.
    """

    rows: Iterable[Mapping[str, Any]]
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


class BatchTask:
    """One task; `open` comes before `run`, and everything else does without the models.

    Args:
        options: Of its batch.

    Attributes:
        suffixes: Endings of the files that folders are searched for.
        columns: What `Found.rows` hold, besides what all tasks have.
        coco: Turns a row into an entry of COCO's results, where there is such a form.
    """

    suffixes: ClassVar[tuple[str, ...]]
    columns: ClassVar[Columns]

    def __init__(self, options: Any) -> None:
        self.options = options

    def files(self) -> tuple[Path, ...]:
        """Return the files of the model; raises ArtifactError."""
        raise NotImplementedError

    def helpers(self) -> tuple[Path, ...]:
        """Return the files of other models that have a part in results."""
        return ()

    def places(self) -> int:
        """Return how many inputs share the runs of the model: its largest batch."""
        return 1

    def open(self, stack: ExitStack) -> None:
        """Open the models; the stack closes them."""
        raise NotImplementedError

    def seats(self, count: int) -> tuple[Seat, ...]:
        """Return the places of so many inputs that are done side by side."""
        nothing: Together[Any, Any] = Together(list, count)
        return tuple(Seat(nothing, member) for member in range(count))

    def media(self, source: Path) -> str:
        """Return the ending of what an input has to show or to play."""
        raise NotImplementedError

    def run(self, source: Path, folder: Path, media: Path | None, seat: Any) -> Found:
        """Return what a file gives.

        Args:
            source: The file.
            folder: For temporary files; rows may be read from there.
            media: What there is to see or hear goes here, None for nowhere.
            seat: Its place beside others.

        Raises:
            PrunusError: it cannot be read, or not be worked on.
        """
        raise NotImplementedError


def hash_of(files: Iterable[Path]) -> str:
    """Return the SHA-256 of a model: of its file, or of the hashes of its files, in hexadecimal."""
    hashes = [sha256_of(path) for path in files]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
