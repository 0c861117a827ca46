"""`prunus run`, `prunus eval` and `prunus batch`: a verb of each for every row of the apps."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from prunus.apps import registry
from prunus.apps.cli.verbs import Verb
from prunus.apps.registry import App
from prunus.runtime.command import INTERRUPTED, Console
from prunus.runtime.references import load


def run_verbs() -> tuple[Verb, ...]:
    """Return the verbs of `prunus run`."""
    return tuple(Verb(a.verb or a.task, a.help, a.options, partial(_run, a)) for a in registry.APPS)


def eval_verbs() -> tuple[Verb, ...]:
    """Return the verbs of `prunus eval`."""
    return tuple(
        Verb(a.task, a.judges, a.eval_options, partial(_evaluate, a))
        for a in registry.APPS
        if a.evaluate
    )


def batch_verbs() -> tuple[Verb, ...]:
    """Return the verbs of `prunus batch`."""
    return tuple(
        Verb(a.task, a.batches, a.batch_options, partial(_batch, a))
        for a in registry.APPS
        if a.batch
    )


def _batch(app: App, options: Any, console: Console) -> int | None:
    """Do a batch, tell what became of it, and return the exit code."""
    from prunus.apps.batch.run import run_batch

    summary = run_batch(app, options, quiet=console.quiet)
    console.say(summary.to_text(), summary.to_json())
    return 1 if summary.aside else None


def _run(app: App, options: object, console: Console) -> int | None:
    """Run an app, tell what it did, and return the exit code."""
    from prunus.apps.io.sinks.outlets import GONE

    summary = load(app.run)(options, quiet=console.quiet)
    # Standard output may carry the sound, or nobody may be there to read it.
    busy = "-" in summary.outputs or GONE in summary.warnings
    stream = sys.stderr if busy else sys.stdout
    if console.json:
        print(summary.to_json(), file=stream)
    elif not console.quiet:
        print(summary.to_text(), file=stream)
    if summary.interrupted:
        return INTERRUPTED
    if (error := summary.error()) is not None:
        raise error
    if summary.warnings and console.quiet and not console.json:
        print("\n".join(f"warning: {line}" for line in summary.warnings), file=sys.stderr)
    return 1 if summary.warnings else None  # what could be done is done, but not all of it


def _evaluate(app: App, options: object, console: Console) -> int | None:
    """Evaluate a model, tell its scores, and return the exit code."""
    from prunus.apps.common.scores import to_json

    with console.progress("eval") as progress:
        scores = load(app.evaluate)(options, progress)
    console.say(scores.to_text(), to_json(scores))
    return 1 if getattr(scores, "skipped", ()) else None
