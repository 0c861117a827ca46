"""What the sub-commands of `prunus export` share: reading of options, and the line at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunus.runtime.errors import UsageError, nearest

_PRECISIONS = ["fp32", "fp16", "int8"]

Activations = Annotated[str, typer.Option(help="Of int8: int8, or uint8 for CPUs.")]
Bf16 = Annotated[
    bool, typer.Option("--bf16", help="Measure OpenVINO's bfloat16; allow it on the card.")
]
Seed = Annotated[int, typer.Option(help="Seed of random weights.")]


def check_precision(precision: str) -> None:
    """Refuse a number format that is not one; raises UsageError."""
    if precision not in _PRECISIONS:
        raise UsageError(
            f"Unknown precision '{precision}'{nearest(precision, _PRECISIONS)}.",
            f"Use one of: {', '.join(_PRECISIONS)}",
        )


def parse_keep(text: str | None) -> tuple[float | None, str | None]:
    """Return (share, plan) of what stands after ``--keep``; one of them is None.

    >>> parse_keep("0.5"), parse_keep("135/95/71@3/6/9")
    ((0.5, None), (None, '135/95/71@3/6/9'))
    """
    if text is None or "@" in text:
        return None, text
    try:
        return float(text), None
    except ValueError:
        raise UsageError(
            f"Got --keep {text}; expected a share or a plan.",
            "Examples: --keep 0.5   --keep 135/95/71@3/6/9",
        ) from None


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Return (height, width) of ``HEIGHTxWIDTH``; raises UsageError for another form."""
    if text is None:
        return None
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise UsageError(f"Got --size {text}; expected HEIGHTxWIDTH.", "Example: --size 352x448")
    return int(height), int(width)


def report(path: Path, as_json: bool) -> None:
    """Print one line about the new file, or its card as JSON."""
    from prunus.runtime.card.artifact import read_card, sha256_of

    card = read_card(path)
    if as_json:
        typer.echo(card.to_json())
        return
    size = path.stat().st_size / 1e6
    typer.echo(f"wrote {path}  {size:.1f} MB  {card.name}  sha256 {sha256_of(path)[:12]}")
