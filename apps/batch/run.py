"""`prunus batch`: share out what is to be done, watch it, and account for every input."""

from __future__ import annotations

import dataclasses
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from prunus.apps.batch import coco
from prunus.apps.batch.inputs import Input, expand
from prunus.apps.batch.ledger import ASIDE, RESULTS, Ledger, Outcome
from prunus.apps.batch.manifest import Run, task_of
from prunus.apps.batch.options import AUTO, NONE
from prunus.apps.batch.storage import Store
from prunus.apps.registry import App
from prunus.runtime.command import Console
from prunus.runtime.errors import ArtifactError, HostError
from prunus.runtime.json_text import json_text

_SHOWN = 10  # inputs that were set aside, named in the text
_READERS = 16  # of results that are there already

Groups = Sequence[Sequence[Input]]


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """What became of the inputs.

    Attributes:
        out: Where the results are.
        inputs: How many there are.
        done: Results of this run.
        earlier: Results that were there already.
        aside: Name of each input that has no result -> why.
        notes: Name -> what was odd about it, of this run.
        redone: Name -> why an earlier result was made anew.
        rows: Over all results.
        seconds: From the first input to the last.
    """

    out: str
    inputs: int
    done: int
    earlier: int
    aside: Mapping[str, str]
    notes: Mapping[str, Sequence[str]]
    redone: Mapping[str, str]
    rows: int
    seconds: float

    def to_json(self) -> str:
        """Return sorted, indented JSON."""
        return json_text(dataclasses.asdict(self), indent=1)

    def to_text(self) -> str:
        """Return a few lines for people."""
        rate = self.done / self.seconds if self.seconds else 0.0
        lines = [
            f"{self.inputs} inputs: {self.done} done ({rate:.2f} a second), {self.earlier} were "
            f"there, {len(self.aside)} set aside; {self.rows} rows in {self.out}"
        ]
        if self.notes:
            lines.append(f"{len(self.notes)} inputs have notes, which their files hold")
        lines += [f"set aside: {why}" for why in list(self.aside.values())[:_SHOWN]]
        if self.aside:
            lines.append(f"all reasons: {self.out}/{ASIDE}; mend them and add --retry")
        return "\n".join(lines)


def run_batch(app: App, options: Any, *, quiet: bool = False) -> BatchSummary:
    """Give every input exactly one result, or the reason why it has none.

    Args:
        app: Row of the task.
        options: Of its batch.
        quiet: No progress and no notes.

    Raises:
        UsageError: no input, another run's folder, or options that do not go together.
        StorageError: results cannot be written, or inputs not be listed.
        HostError: this machine lacks something, or Ray broke off; the same call goes on.
    """
    compute = options.compute
    options = dataclasses.replace(
        options, compute=dataclasses.replace(compute, threads=compute.threads or 1)
    )
    work, task, run = options.work, task_of(app, options), Run.of(app, options)
    store = Store(work.out)
    inputs = expand(work.sources, task.suffixes, store.name)
    run.begin(store)
    store.sweep()
    number = uuid.uuid4().hex[:8]
    ledger = Ledger(store, run.same, task.columns, number)

    def say(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr)

    told, redone = _earlier(ledger, inputs, retry=work.retry)
    for name in set(ledger.leftover()) - set(told):
        say(f"note: an earlier run ended over {name}; it is done again")
    for name, why in redone.items():
        say(f"note: the result of {name} is made again: {why}")
    todo, places = sum(one.name not in told for one in inputs), task.places()
    earlier = sum(not outcome.reason for outcome in told.values())
    all_groups = [inputs[k : k + places] for k in range(0, len(inputs), places)]
    groups = [group for group in all_groups if any(one.name not in told for one in group)]
    if groups:
        share = f"inputs share its runs {places} by {places}" if places > 1 else "frame by frame"
        say(f"{todo} of {len(inputs)} inputs; the model has batch {places}: {share}")
    begun, aside = time.perf_counter(), sum(bool(outcome.reason) for outcome in told.values())
    with Console(quiet=quiet).progress(app.task) as progress:
        for outcome in _outcomes(run, number, groups, say) if groups else ():
            before = told.get(outcome.name)
            if before is None or not outcome.earlier:
                told[outcome.name] = outcome
                aside += bool(outcome.reason) - bool(before and before.reason)
            progress.update(len(told), len(inputs), f"{aside} set aside" if aside else "")
    seconds = time.perf_counter() - begun
    _account(ledger, inputs, told)
    ledger.leftover()
    if getattr(options, "coco", False):
        coco.write(store, inputs, told, task)
    kept = [told[one.name] for one in inputs]
    return BatchSummary(
        out=store.address, inputs=len(inputs),
        done=sum(not o.reason for o in kept) - earlier, earlier=earlier,
        aside={o.name: o.reason for o in kept if o.reason},
        notes={o.name: o.notes for o in kept if o.notes and not o.earlier},
        redone=redone, rows=sum(o.rows for o in kept), seconds=seconds,
    )  # fmt: skip


def _outcomes(run: Run, number: str, groups: Groups, say: Any) -> Iterator[Outcome]:
    """Yield what becomes of the inputs, here or on Ray."""
    address = run.options.work.ray
    if address == NONE or (address == AUTO and find_spec("ray") is None):
        from prunus.apps.batch.worker import Worker

        with Worker(run, number) as worker:
            for group in groups:
                yield from worker(group)
        return
    from prunus.apps.batch.cluster import on_ray

    yield from on_ray(run, number, groups, say)


def _earlier(
    ledger: Ledger, inputs: Sequence[Input], *, retry: bool
) -> tuple[dict[str, Outcome], dict[str, str]]:
    """Return what is there already, and why some of it does not count."""
    there = {folder: set(ledger.store.files(folder)) for folder in (RESULTS, ASIDE)}
    kept: dict[str, Outcome] = {}
    redone: dict[str, str] = {}

    def look(one: Input) -> None:
        try:
            outcome = ledger.outcome(one, there)
        except ArtifactError as error:
            redone[one.name] = error.message
            return
        if outcome is not None and not outcome.reason and f"{one.key}.parquet" in there[ASIDE]:
            ledger.store.remove(f"{ASIDE}/{one.key}.parquet")  # killed between the two
        if outcome is not None and not (retry and outcome.reason):
            kept[one.name] = outcome

    with ThreadPoolExecutor(_READERS) as pool:
        for _ in pool.map(look, inputs):
            pass
    return kept, dict(sorted(redone.items()))


def _account(ledger: Ledger, inputs: Sequence[Input], told: Mapping[str, Outcome]) -> None:
    """Compare what was told with what lies there: every input has one file, in one folder.

    Raises:
        HostError: something is missing or doubled.
    """
    done, aside = (set(ledger.store.files(folder)) for folder in (RESULTS, ASIDE))
    wrong = [
        one.name
        for one in inputs
        for name in [f"{one.key}.parquet"]
        if one.name not in told or (name in done) == (name in aside)
    ]
    if wrong:
        raise HostError(
            f"{len(wrong)} inputs have no result or two, {wrong[0]} among them.",
            "Run the same again: it does what is missing.",
        )
