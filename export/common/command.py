"""From a row of the registry to ``prunus export NAME`` and ``python -m prunus.export.NAME``.

The options are those of the row's dataclass; every file that was written gets one line, or its card
as JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prunus.export.common.registry import ExportModel, find_model, load
from prunus.runtime.command import Call, Console, run_script


def script(name: str, words: Sequence[str] | None = None) -> int:
    """Run ``python -m prunus.export.NAME``; returns its exit code.

    Args:
        name: Of the model.
        words: Words of the command line; None: this process' own.
    """
    model = find_model(name)
    program = f"python -m prunus.export.{name}"
    return run_script(
        load(model.options), call_of(model), name=program,
        help=f"{model.help}\n\n{examples_of(model, program)}", words=words,
    )  # fmt: skip


def examples_of(model: ExportModel, program: str) -> str:
    """Return the examples of a model's help; `program` is what stands before its words."""
    examples = "".join(f"\n  {program} {words}" for words in model.examples)
    return f"\b\nExamples:{examples}\n"


def call_of(model: ExportModel) -> Call:
    """Return what a command line does with the options of a model."""

    def call(options: Any, console: Console) -> None:
        with console.progress("export") as progress:
            paths = model.export(options, progress)
        for path in paths:
            _report(path, console)
        if model.remarks and not (console.json or console.quiet):
            for line in load(model.remarks)(paths):
                console.say(line)

    return call


def _report(path: Path, console: Console) -> None:
    from prunus.runtime.card.artifact import read_card, sha256_of

    card = read_card(path)
    size = path.stat().st_size / 1e6
    text = f"wrote {path}  {size:.1f} MB  {card.name}  sha256 {sha256_of(path)[:12]}"
    console.say(text, card.to_json())
