"""One process of a batch: its models warm, one group of inputs after the other."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from prunus.apps.batch.inputs import Input
from prunus.apps.batch.ledger import MOST_TRIES, Ledger, Outcome
from prunus.apps.batch.manifest import Run, task_of
from prunus.apps.batch.storage import (
    StorageError,
    Store,
    on_this_machine,
    open_filesystem,
    reason_of,
)
from prunus.runtime.card.artifact import write_error
from prunus.runtime.errors import ArtifactError, HostError, PrunusError, SourceError
from prunus.runtime.protocols import Closable

_TRIM_EVERY = 100  # inputs


class Worker(Closable):
    """Do inputs of a run; what is done already stays as it is.

    Args:
        run: Which run.
        number: Tells this start of the program from others.

    Raises:
        PrunusError: the storage or the models cannot be used here.
    """

    def __init__(self, run: Run, number: str) -> None:
        run = Run.of(run.app, run.options)  # with the models of this machine
        store = Store(run.options.work.out)
        run.require(store)
        self._task = task_of(run.app, run.options)
        self._ledger = Ledger(store, run.same, self._task.columns, number)
        self._media, self._count = run.options.work.media, 0
        self._owned = ExitStack()
        self._task.open(self._owned)

    def __call__(self, group: Sequence[Input]) -> list[Outcome]:
        """Return what became of each input of a group, which share the model's runs.

        What is done already takes part once more where others are missing: last digits of a result
        depend on who shared its runs, and a second start of the program shall not be seen in them.

        Raises:
            HostError: this machine lacks something that no input can help.
            SourceError: the storage refuses a result.
        """
        deaths = self._ledger.begun()
        found = {one.key: self._known(one) for one in group}
        if all(found.values()):
            return [told for told in found.values() if told]
        # Over which of them a worker died is found out by doing them one by one.
        together = [one for one in group if not deaths.get(one.key)]
        alone = [[one] for one in group if deaths.get(one.key) and not found[one.key]]
        for some in (together, *alone):
            outcomes = self._side_by_side(some, deaths, found)
            found |= {one.key: told for one, told in zip(some, outcomes, strict=True)}
        return [told for told in found.values() if told]

    def _known(self, one: Input) -> Outcome | None:
        try:
            told = self._ledger.outcome(one)
        except ArtifactError:  # said by the one who shares out the work
            return None
        return told if told is None or not told.reason else None

    def _side_by_side(
        self, group: Sequence[Input], deaths: Mapping[str, int], known: Mapping[str, Outcome | None]
    ) -> list[Outcome]:
        seats = self._task.seats(len(group))

        def done(one: Input, seat: Any) -> Outcome:
            return self._done(one, deaths.get(one.key, 0), known[one.key], seat)

        if len(group) < 2:
            return list(map(done, group, seats))
        with ThreadPoolExecutor(len(group)) as pool:
            try:
                return list(pool.map(done, group, seats))
            finally:  # also when somebody stops the run
                seats[0].end()

    def _done(self, one: Input, before: int, known: Outcome | None, seat: Any) -> Outcome:
        """Return what became of one input; whatever it did to the program is its own fault.

        Args:
            one: The input.
            before: Times at which a worker died over it.
            known: What it gave before; it is not kept again.
            seat: Its place beside others.
        """
        try:
            self._ledger.begin(one, before)
            if before >= MOST_TRIES:
                raise SourceError(
                    f"The program died {before} times over {one.name}.",
                    "Its memory may not do, or a decoder crashes: run it alone.",
                )
            outcome = self._result(one, known, seat)
        except (HostError, StorageError):
            raise
        except PrunusError as error:
            outcome = self._ledger.set_aside(one, error)
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise write_error(error, tempfile.gettempdir()) from None
            reason = f"{one.name}: {type(error).__name__}: {reason_of(error)}."
            outcome = self._ledger.set_aside(one, SourceError(reason))
        finally:
            seat.leave()
            self._ledger.end(one, before)
            self._count += 1
            if self._count % _TRIM_EVERY == 0:
                _give_back_memory()
        return outcome

    def _result(self, one: Input, known: Outcome | None, seat: Any) -> Outcome:
        system, path = open_filesystem(one.address)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prunus-")))
            try:
                source = stack.enter_context(on_this_machine(system, path))
            except OSError as error:
                raise SourceError(f"Cannot read {one.name}: {reason_of(error)}.") from None
            media = folder / f"media{self._task.media(source)}" if self._media else None
            try:
                found = self._task.run(source, folder, media, seat)
            except HostError:
                raise
            except PrunusError as error:
                message = error.message.replace(str(source), one.name)
                raise SourceError(message, error.hint) from None
            if found.faults:
                raise SourceError("; ".join(found.faults).replace(str(source), one.name))
            return known or self._ledger.finish(one, found, media)

    def close(self) -> None:
        """Free the models."""
        self._owned.close()


def _give_back_memory() -> None:
    """Free what runs leave: circles of objects, and pieces of heaps of threads that are gone."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # another C library has no such call
        ctypes.CDLL(None).malloc_trim(0)
