"""Draw ``local-global-attention.svg`` from the index tables that networks use.

    python docs/images/draw_local_global_attention.py

One query (dark) and what it reads, for three partitions, and the whole pattern as a matrix.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from prunus.models.layers.local_global.index import (
    WindowTables,
    grid_windows,
    overlapping_windows,
    shifted_windows,
)

GRID, WINDOW, GLOBALS = (8, 6), (4, 3), 4
CELL, GAP, TOP = 16, 34, 36
QUERY, LOCAL, GLOBAL, HIDDEN, EMPTY = "#1b4965", "#62b6cb", "#f4a259", "#cfd8dc", "#f1f3f4"
FONT = 'font-family="sans-serif" font-size="12" fill="#333"'


def main(target: Path) -> None:
    """Write the picture."""
    middle, corner = 2 * GRID[1] + 3, GRID[0] * GRID[1] - 1
    partitions = {
        "windows": (grid_windows(GRID, WINDOW), middle),
        "shifted windows": (shifted_windows(GRID, WINDOW, (2, 1)), corner),
        "overlapping keys": (overlapping_windows(GRID, WINDOW, (6, 5)), middle),
    }
    parts: list[str] = []
    x = GAP // 2
    for title, (tables, query) in partitions.items():
        parts += _grid(title, tables, x, query)
        x += GRID[1] * CELL + GAP
    parts += _matrix("queries x (keys | globals), windows", partitions["windows"][0], x)
    width = x + (GRID[0] * GRID[1] + GLOBALS + 1) * 4 + GAP // 2
    parts += _legend(GAP // 2, TOP + GRID[0] * CELL + 62)
    height = TOP + GRID[0] * CELL + 82
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">\n<rect width="100%" height="100%" fill="#fff"/>'
    )
    target.write_text("\n".join([head, *parts, "</svg>\n"]))


def _square(x: int, y: int, size: int, colour: str) -> str:
    return f'<rect x="{x}" y="{y}" width="{size - 1}" height="{size - 1}" fill="{colour}"/>'


def _text(x: int, y: int, words: str) -> str:
    return f'<text x="{x}" y="{y}" {FONT}>{words}</text>'


def _reads(tables: WindowTables, query: int) -> dict[int, str]:
    """Return the colour of every key that the query's window lists."""
    window, row = ((tables.q_index == query).nonzero()[0]).tolist()
    keys = tables.kv_index[window].tolist()
    if tables.mask is None:
        return dict.fromkeys(keys, LOCAL)
    mask = tables.mask.expand(tables.windows, 1, tables.q_index.shape[1], len(keys))
    visible = (mask[window, 0, row] == 0).tolist()
    return {key: LOCAL if seen else HIDDEN for key, seen in zip(keys, visible, strict=True)}


def _grid(title: str, tables: WindowTables, x: int, query: int) -> Iterator[str]:
    yield _text(x, TOP - 16, title)
    colours = _reads(tables, query) | {query: QUERY}
    for token in range(GRID[0] * GRID[1]):
        row, column = divmod(token, GRID[1])
        yield _square(x + column * CELL, TOP + row * CELL, CELL, colours.get(token, EMPTY))
    for k in range(GLOBALS):
        yield _square(x + k * CELL, TOP + GRID[0] * CELL + 14, CELL, GLOBAL)


def _matrix(title: str, tables: WindowTables, x: int) -> Iterator[str]:
    yield _text(x, TOP - 16, title)
    count, size = GRID[0] * GRID[1], 4
    order = tables.q_index.flatten().tolist()
    for row, query in enumerate(order):
        colours = _reads(tables, query)
        for column, key in enumerate(order):
            if key in colours:
                yield _square(x + column * size, TOP + row * size, size, colours[key])
        for k in range(GLOBALS):
            yield _square(x + (count + 1 + k) * size, TOP + row * size, size, GLOBAL)


def _legend(x: int, y: int) -> Iterator[str]:
    for colour, words in (
        (QUERY, "query"),
        (LOCAL, "keys of its window"),
        (HIDDEN, "masked keys"),
        (GLOBAL, "global tokens"),
    ):
        yield _square(x, y - 11, 13, colour)
        yield _text(x + 18, y, words)
        x += 40 + 7 * len(words)


if __name__ == "__main__":
    default = Path(__file__).with_name("local-global-attention.svg")
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else default)
