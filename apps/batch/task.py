"""What a task brings to a batch: its models, and what one input gives."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from prunus.apps.batch.options import Work
from prunus.apps.batch.shards import Columns
from prunus.apps.batch.together import Seat, Together
from prunus.apps.common.options import BackendChoice
from prunus.apps.live.summary import Summary
from prunus.runtime.card.artifact import sha256_of
from prunus.runtime.pictures.files import PICTURES

Done = TypeVar("Done", bound=Summary)


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


class BatchTask(abc.ABC):
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

    @abc.abstractmethod
    def files(self) -> tuple[Path, ...]:
        """Return the files of the model; raises ArtifactError."""

    def helpers(self) -> tuple[Path, ...]:
        """Return the files of other models that have a part in results."""
        return ()

    def places(self) -> int:
        """Return how many inputs share the runs of the model: its largest batch."""
        return 1

    @abc.abstractmethod
    def open(self, stack: ExitStack) -> None:
        """Open the models; the stack closes them."""

    def seats(self, count: int) -> tuple[Seat, ...]:
        """Return the places of so many inputs that are done side by side."""
        nothing: Together[Any, Any] = Together(list, count)
        return tuple(Seat(nothing, member) for member in range(count))

    @abc.abstractmethod
    def media(self, source: Path) -> str:
        """Return the ending of what an input has to show or to play."""

    @abc.abstractmethod
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

    def chosen(self, kind: type) -> dict[str, Any]:
        """Return the options that a run and a batch share, which are the fields of `kind`."""
        return {f.name: getattr(self.options, f.name) for f in dataclasses.fields(kind)}


def uninterrupted(done: Done) -> Done:
    """Return what a run did; raises KeyboardInterrupt where that is what ended it."""
    if done.interrupted:
        raise KeyboardInterrupt
    return done


def drawn_ending(source: Path) -> str:
    """Return the ending of a drawn picture or video."""
    ending = source.suffix.lower()
    return ending if ending in PICTURES else ".mp4"


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """Yield what a run wrote as JSON lines."""
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def hash_of(files: Iterable[Path]) -> str:
    """Return the SHA-256 of a model: of its file, or of the hashes of its files, in hexadecimal."""
    hashes = [sha256_of(path) for path in files]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
