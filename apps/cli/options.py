"""Flags of `prunus export`, spelled once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from prunus.runtime.progress import ConsoleProgress, Silent

Output = Annotated[
    Path | None, typer.Option("-o", "--output", help="Where the result goes.", metavar="PATH")
]
Precision = Annotated[
    str, typer.Option("--precision", help="Number format: fp32, fp16 or int8.", metavar="NAME")
]
Keep = Annotated[
    str | None,
    typer.Option(
        "--keep",
        help="Tokens to keep: a share (0.5) or a plan '120/84/60@3/6/9' (tokens@blocks).",
        metavar="PLAN",
    ),
]
Level = Annotated[
    str | None, typer.Option("--level", help="Pruning level L0 (dense) to L3.", metavar="LEVEL")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress and no notes.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the whole trace of an error.")]


@contextlib.contextmanager
def shown_progress(title: str, quiet: bool) -> Iterator[ConsoleProgress | Silent]:
    """Yield the progress display of a verb: silent with ``--quiet``."""
    if quiet:
        yield Silent()
        return
    with ConsoleProgress(title) as progress:
        yield progress
