"""`prunus models`: what is shipped, and the way in for official checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunus.apps.cli.verbs import Verb
from prunus.apps.common import options as shared
from prunus.runtime.command import Console
from prunus.runtime.json_text import json_text
from prunus.runtime.options import argument, option

if TYPE_CHECKING:
    from prunus.models.checkpoints.registry import ImportCommand

VERBS = (
    Verb("list", "List the models that come with prunus.",
         f"{__name__}:ListOptions", f"{__name__}:list_models"),
    Verb("import", "Turn an official checkpoint into a safetensors file that prunus exports.",
         "prunus.models.checkpoints.registry:ImportCommand", f"{__name__}:import_checkpoint"),
    Verb("fetch", "Download a checkpoint whose hash is known, from where an earlier try stopped.",
         f"{__name__}:FetchOptions", f"{__name__}:fetch_file"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ListOptions:
    """What `prunus models list` does.

    \b
    Examples:
      prunus models
      prunus models --json
    """


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """What `prunus models fetch` does.

    \b
    Examples:
      prunus models fetch https://example.org/vitpose-b.pth --sha256 0123...cdef
      prunus models fetch URL --sha256 HASH -o weights/vitpose-b.pth
    """

    url: str = argument("Address of a checkpoint.")
    sha256: str = option("Its hash, 64 hexadecimal digits.")
    output: Path | None = shared.output()


def list_models(options: ListOptions, console: Console) -> None:
    """List the models that come with prunus."""
    rows = [_row(entry) for entry in _entries()]
    if console.json:
        console.say("", json_text(rows, indent=1))
    else:
        _print_table(rows)


def import_checkpoint(options: ImportCommand, console: Console) -> None:
    """Turn an official checkpoint into a safetensors file that prunus exports.

    Raises:
        UsageError: an option that does not concern this model.
    """
    from prunus.models.checkpoints.registry import import_model

    target = options.output or options.checkpoint.with_suffix(".prunus.safetensors")
    lines = import_model(options.model, options.checkpoint, target, options.about)
    if not console.quiet:
        console.say("\n".join(lines))


def fetch_file(options: FetchOptions, console: Console) -> None:
    """Download a checkpoint whose hash is known."""
    from urllib.parse import unquote, urlparse

    from prunus.models.fetch import fetch

    name = Path(unquote(urlparse(options.url).path)).name

    target = options.output or Path(name or "checkpoint")
    with console.progress("fetch") as progress:
        path = fetch(options.url, options.sha256, target, progress=progress)
    if not console.quiet:
        console.say(f"wrote {path}; read it with: prunus models import {path}")


def _entries() -> tuple[Any, ...]:
    from prunus.models import zoo

    return tuple(zoo.entries())


def _row(entry: Any) -> dict[str, Any]:
    """Return one zoo entry as plain values; what the table does not show is in the JSON."""
    import dataclasses

    values = dataclasses.asdict(entry)
    row = {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}
    return row | {"size_mb": round(entry.size / 1e6, 1)}


def _print_table(rows: list[dict[str, Any]]) -> None:
    from prunus.apps.common.tables import print_table

    columns = ("name", "kind", "task", "size_mb", "licence", "origin")
    shown = [c for c in columns if any(c in row for row in rows)]
    print_table("shipped models", shown, [[str(row.get(c, "")) for c in shown] for row in rows])
