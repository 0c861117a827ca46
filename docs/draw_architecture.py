"""Draw the parts and folders of prunus and what imports what, as the code says.

    python docs/draw_architecture.py            # writes docs/images/architecture.svg
    python docs/draw_architecture.py --check    # exit code 1 when that picture is out of date

Nothing is imported: the source is parsed. The same code gives the same picture. Folders stand in an
order in which imports go down the page where they can; a number is a count of import statements.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "images" / "architecture.svg"
PARTS = ("runtime", "models", "export", "apps")
TOP = "(top)"  # modules that lie in a part's own folder

WIDTH, ROW, HEAD, GAP = 250, 22, 46, 110
TEXT = 'font-family="sans-serif" fill="#222"'


@dataclass(frozen=True, slots=True)
class Import:
    """One import of a module of prunus by another.

    Attributes:
        source: Module that imports, without ``prunus.``.
        target: Module that is imported.
        lazy: Inside a function, or for type checkers alone.
        line: Line of the statement.
    """

    source: str
    target: str
    lazy: bool
    line: int


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Return every module of the parts by its name without ``prunus.``; a package by its own."""
    found = {}
    for part in PARTS:
        for path in sorted((root / part).rglob("*.py")):
            words = path.relative_to(root).with_suffix("").parts
            found[".".join(words[:-1] if words[-1] == "__init__" else words)] = path
    return found


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """Return the parsed source of a module; not to be changed."""
    return ast.parse(path.read_text(encoding="utf-8"))


def statements(tree: ast.AST) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Yield the import statements of a module, and whether each waits for a call."""

    def visit(node: ast.AST, lazy: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
        for child in ast.iter_child_nodes(node):
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            types_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
            if isinstance(child, ast.Import | ast.ImportFrom):
                yield child, lazy
            yield from visit(child, lazy or inside or types_only)

    yield from visit(tree, False)


def imports(root: Path = ROOT) -> list[Import]:
    """Return every import between modules of prunus, in the order of the files."""
    known = modules(root)
    found = []
    for name, path in known.items():
        for statement, lazy in statements(tree_of(path)):
            for target in _targets(statement, known):
                if target != name:
                    found.append(Import(name, target, lazy, statement.lineno))
    return found


def _targets(statement: ast.Import | ast.ImportFrom, known: dict[str, Path]) -> list[str]:
    """Return the modules of prunus that a statement names; a name of a module is no module."""
    if isinstance(statement, ast.Import):
        words = [alias.name for alias in statement.names]
    else:
        words = [f"{statement.module}.{alias.name}" for alias in statement.names]
    found = []
    for word in words:
        bare = word.removeprefix("prunus.")
        if bare == word:
            continue
        found.append(bare if bare in known else bare.rpartition(".")[0])
    return [word for word in dict.fromkeys(found) if word in known]


def folder_of(module: str) -> tuple[str, str]:
    """Return the part and the folder below it, `TOP` for modules that lie in the part itself."""
    part, *rest = module.split(".")
    if len(rest) > 1 or (rest and (ROOT / part / rest[0]).is_dir()):
        return part, rest[0]
    return part, TOP


def _ordered(folders: list[str], inside: Counter[tuple[str, str]]) -> list[str]:
    """Return folders so that imports go down: one that no remaining one imports comes first."""
    rest, order = sorted(folders), []
    while rest:
        weight = {f: sum(inside[g, f] for g in rest if g != f) for f in rest}
        first = min(rest, key=lambda f: (weight[f], f))
        order.append(first)
        rest.remove(first)
    return order


def draw(root: Path = ROOT) -> str:
    """Return the picture as SVG."""
    counts: Counter[tuple[str, str]] = Counter()
    for module, path in modules(root).items():
        counts[folder_of(module)] += path.name != "__init__.py"
    inside = {part: Counter[tuple[str, str]]() for part in PARTS}
    between: Counter[tuple[str, str, bool]] = Counter()
    for one in imports(root):
        (part, folder), (other, target) = folder_of(one.source), folder_of(one.target)
        if part != other:
            between[part, other, one.lazy] += 1
        elif folder != target and not one.lazy:
            inside[part][folder, target] += 1
    boxes, height = [], 0
    for column, part in enumerate(PARTS):
        folders = _ordered([f for p, f in counts if p == part], inside[part])
        boxes.append(_part(part, folders, counts, inside[part], 20 + column * (WIDTH + GAP)))
        height = max(height, HEAD + ROW * len(folders))
    foot, lines = _between(between, height + 60)
    wide, high = 110 + len(PARTS) * (WIDTH + GAP) - GAP, height + 80 + 24 * lines
    body = "\n".join([*boxes, foot])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}">\n'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" '
        'markerHeight="6" orient="auto-start-reverse"><path d="M0 0 8 4 0 8z" fill="#667"/>'
        '</marker></defs>\n<rect width="100%" height="100%" fill="#fff"/>\n'
        f"{body}\n</svg>\n"
    )


def _part(
    part: str,
    folders: list[str],
    counts: Counter[tuple[str, str]],
    inside: Counter[tuple[str, str]],
    left: int,
) -> str:
    """Return one part: its folders, and arcs from each to those that it imports."""
    height = HEAD + ROW * len(folders)
    number = sum(counts[part, f] for f in folders)
    lines = [
        f'<rect x="{left}" y="20" width="{WIDTH}" height="{height}" rx="6" fill="#eef2f7" '
        'stroke="#667"/>',
        f'<text x="{left + 12}" y="46" {TEXT} font-size="17" font-weight="bold">{part}/</text>',
        f'<text x="{left + WIDTH - 12}" y="46" {TEXT} font-size="12" text-anchor="end">'
        f"{number} modules</text>",
    ]
    place = {folder: 20 + HEAD + ROW * k + 4 for k, folder in enumerate(folders)}
    for folder in folders:
        y = place[folder] + 4
        lines.append(
            f'<text x="{left + 12}" y="{y}" {TEXT} font-size="13">{folder}</text>'
            f'<text x="{left + WIDTH - 12}" y="{y}" {TEXT} font-size="11" text-anchor="end">'
            f"{counts[part, folder]}</text>"
        )
    edge = left + WIDTH
    for (source, target), count in sorted(inside.items()):
        a, b = place[source], place[target]
        reach = 12 + 0.28 * abs(b - a)
        up = "#b4472f" if b < a else "#667"
        lines.append(
            f'<path d="M{edge} {a}C{edge + reach:.0f} {a} {edge + reach:.0f} {b} {edge + 2} {b}" '
            f'fill="none" stroke="{up}" stroke-width="{min(0.6 + count / 12, 3):.1f}" '
            f'opacity="0.7" marker-end="url(#tip)"><title>{source} imports {target}: {count}'
            "</title></path>"
            f'<text x="{edge + 0.75 * reach:.0f}" y="{(a + b) / 2 + 3:.0f}" {TEXT} font-size="8">'
            f"{count}</text>"
        )
    return "\n".join(lines)


def _between(between: Counter[tuple[str, str, bool]], top: int) -> tuple[str, int]:
    """Return the arrows between parts as lines of text with counts, and how many there are."""
    middle = {part: 20 + k * (WIDTH + GAP) + WIDTH // 2 for k, part in enumerate(PARTS)}
    lines = []
    for k, ((source, target, lazy), count) in enumerate(sorted(between.items())):
        y = top + 24 * k
        a, b = middle[source], middle[target]
        dash = ' stroke-dasharray="5 4"' if lazy else ""
        how = "inside functions" if lazy else "at module level"
        lines.append(
            f'<path d="M{a} {y}H{b}" fill="none" stroke="#667" stroke-width="1.5"{dash} '
            f'marker-end="url(#tip)"/><circle cx="{a}" cy="{y}" r="3" fill="#667"/>'
            f'<text x="{(a + b) // 2}" y="{y - 4}" {TEXT} font-size="11" text-anchor="middle">'
            f"{source} imports {target}: {count} {how}</text>"
        )
    return "\n".join(lines), len(lines)


def main(words: list[str]) -> int:
    """Write the picture, or compare it; return the exit code."""
    picture = draw()
    if "--check" not in words:
        PICTURE.write_text(picture, encoding="utf-8")
        return 0
    if PICTURE.is_file() and PICTURE.read_text(encoding="utf-8") == picture:
        return 0
    sys.stderr.write("error: docs/images/architecture.svg is not what the code says.\n"
                     "hint: python docs/draw_architecture.py\n")  # fmt: skip
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
