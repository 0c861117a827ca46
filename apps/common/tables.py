"""Tables: rich on a terminal, aligned plain text in pipes and where rich is not installed."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table to stdout; columns whose cells are all numbers are aligned to the right."""
    if sys.stdout.isatty():
        try:
            _print_rich(title, columns, rows)
            return
        except ImportError:
            pass
    print(plain_table(title, columns, rows))


def plain_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the table as aligned text without any escape code.

    >>> print(plain_table("t", ("model", "ms"), [("a", "1.5"), ("bb", "12.0")]))
    t
    model    ms
    a       1.5
    bb     12.0
    """
    numeric = _numeric(columns, rows)
    widths = [max(len(str(row[i])) for row in (columns, *rows)) for i in range(len(columns))]

    def line(cells: Sequence[str]) -> str:
        pairs = zip(cells, widths, numeric, strict=True)
        return "  ".join(c.rjust(w) if right else c.ljust(w) for c, w, right in pairs).rstrip()

    return "\n".join([title, line(columns), *(line(row) for row in rows)])


def _print_rich(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", title_style="bold")
    for name, right in zip(columns, _numeric(columns, rows), strict=True):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def _numeric(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[bool]:
    return [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(columns))]


def _is_number(cell: str) -> bool:
    text = cell.strip().rstrip("x%").replace(",", "").strip()
    if not text or text == "-":
        return True
    try:
        float(text)
    except ValueError:
        return False
    return True
