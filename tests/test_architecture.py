"""The house, read off the source itself: who may import whom, and what lies where."""

import ast
import functools
import importlib.util
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _load_drawing():
    path = ROOT / "docs" / "draw_architecture.py"
    spec = importlib.util.spec_from_file_location("draw_architecture", path)
    module = sys.modules["draw_architecture"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


drawing = _load_drawing()
PARTS = drawing.PARTS
MODULES = drawing.modules()
# part -> parts it may import anywhere, and parts it may import inside functions only
ALLOWED = {
    "runtime": set(),
    "models": {"runtime"},
    "export": {"models", "runtime"},
    "apps": {"runtime"},
}
LAZY = {"apps": {"models", "export"}}
LIGHT = {"numpy", "prunus", *sys.stdlib_module_names}
# A kernel is defined by a decorator of its compiler; no other module imports one at module level.
KERNELS = {"runtime.plugins.local_global_attention.kernel"}
MOST_MODULES = 12

# What still breaks a guard, while the rooms it lies in are being rebuilt. A row that no longer
# breaks it fails the test as well: take it out.
KNOWN: dict[str, object] = {
    "modules": {},
    "unreachable": {"models.tokens.macs"},  # a formula for callers, who have no network yet
    "task comparisons": {},
}


@functools.cache
def _imports():
    """Read the whole source when a test asks: every worker collects this file, one runs it."""
    return drawing.imports()


@functools.cache
def _trees() -> dict[str, ast.Module]:
    return {name: drawing.tree_of(path) for name, path in MODULES.items()}


def _where(name: str) -> str:
    return str(MODULES[name].relative_to(ROOT))


def _compare_with_known(found, kind: str) -> None:
    """Demand that exactly the known exceptions are found: new ones and mended ones are told."""
    assert found == KNOWN[kind], f"KNOWN[{kind!r}] should be: {found!r}"


def test_arrows_between_parts() -> None:
    wrong = [
        f"{_where(i.source)}:{i.line} imports {i.target}"
        for i in _imports()
        for part, other in [(i.source.split(".")[0], i.target.split(".")[0])]
        if part != other
        and other not in ALLOWED[part] | (LAZY.get(part, set()) if i.lazy else set())
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_is_imported_by_its_bare_folder_name() -> None:
    wrong = []
    for path in [*MODULES.values(), *ROOT.glob("benchmarks/**/*.py"), *ROOT.glob("tests/**/*.py")]:
        for statement, _ in drawing.statements(drawing.tree_of(path)):
            names = [a.name for a in statement.names]
            if isinstance(statement, ast.ImportFrom):
                names = [statement.module or ""]
            if any(name.split(".")[0] in PARTS for name in names):
                wrong.append(f"{path.relative_to(ROOT)}:{statement.lineno}")
    assert not wrong, "write prunus.<part>: " + ", ".join(wrong)


def _circles(edges: set[tuple[str, str]]) -> list[list[str]]:
    """Return the sets of modules that reach one another (strongly connected, after Tarjan)."""
    following = defaultdict(set)
    for source, target in edges:
        following[source].add(target)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in sorted(following[name]):
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in sorted({n for edge in edges for n in edge}):
        if name not in index:
            visit(name)
    return found


def test_no_module_imports_itself_through_others() -> None:
    """At module level a circle breaks whichever import comes first; there is none."""
    assert _circles({(i.source, i.target) for i in _imports() if not i.lazy}) == []


def test_the_search_finds_circles() -> None:
    edges = {("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("d", "e")}
    assert _circles(edges) == [["a", "b", "c"]]


def test_circles_through_functions_stay_inside_a_part(record_property) -> None:
    """A circle that waits for a call works; between parts it would still be an upward arrow."""
    circles = _circles({(i.source, i.target) for i in _imports()})
    record_property("circles through functions", circles)
    print("\n".join("circle through functions: " + ", ".join(c) for c in circles))
    mixed = [c for c in circles if len({name.split(".")[0] for name in c}) > 1]
    assert not mixed


def test_runtime_needs_numpy_alone() -> None:
    wrong = []
    for name in (n for n in MODULES if n.split(".")[0] == "runtime"):
        allowed = LIGHT | ({"triton"} if name in KERNELS else set())
        for statement, lazy in drawing.statements(_trees()[name]):
            names = [a.name for a in statement.names]
            if isinstance(statement, ast.ImportFrom):
                names = [statement.module or ""]
            heavy = any(n.removeprefix("prunus.") in KERNELS for n in names)
            if not lazy and (heavy or any(n.split(".")[0] not in allowed for n in names)):
                wrong.append(f"{_where(name)}:{statement.lineno} imports {names}")
    assert not wrong, "\n".join(wrong)


def test_no_relative_imports_no_stars_and_no_catch_all_modules() -> None:
    for name, tree in _trees().items():
        assert MODULES[name].stem not in {"utils", "helpers", "common", "misc"}, name
        for statement, _ in drawing.statements(tree):
            if isinstance(statement, ast.ImportFrom):
                assert statement.level == 0, f"{_where(name)}:{statement.lineno}"
                assert all(a.name != "*" for a in statement.names), f"{name}:{statement.lineno}"


def test_what_apps_write_as_json_is_json_to_everybody() -> None:
    """`json.dumps` alone writes NaN, which most readers refuse; `json_text` does not."""
    found = {
        f"{name}:{node.lineno}"
        for name, tree in _trees().items()
        if name.startswith(("apps.", "prunus.", "export.verify.", "export.planning."))
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("json.dumps", "json.dump")
        and "allow_nan" not in {word.arg for word in node.keywords}
    }
    assert not found


def test_a_folder_holds_at_most_a_dozen_modules() -> None:
    files = [*MODULES.values(), *ROOT.glob("benchmarks/**/*.py")]
    sizes = Counter(path.parent for path in files if path.name != "__init__.py")
    full = {str(p.relative_to(ROOT)): n for p, n in sizes.items() if n > MOST_MODULES}
    _compare_with_known(full, "modules")


def _strings(tree: ast.Module) -> set[str]:
    nodes = (n for n in ast.walk(tree) if isinstance(n, ast.Constant))
    return {n.value for n in nodes if isinstance(n.value, str)}


def _named_modules(name: str, own: str) -> set[str]:
    """Return modules that the strings of a module name: rows of registries, targets of processes.

    A row may leave out what its registry puts in front of every row: the folder that it lies in, or
    the part.
    """
    found = set()
    # What an f-string puts in front: constants of the module that name a folder of prunus.
    texts = list(_strings(_trees()[name]))
    folders = [f"{t.removeprefix('prunus.')}." for t in texts if t[:7] == "prunus."]
    for text in texts:
        word = text.partition(":")[0].removeprefix("prunus.").lstrip(".")
        if not re.fullmatch(r"[a-z_][a-z0-9_.]*", word):
            continue
        package, part = own.rpartition(".")[0], own.partition(".")[0]
        for prefix in ("", f"{package}.", f"{part}.", *folders):
            if prefix + word in MODULES:
                found.add(prefix + word)
    return found


def _entry_points() -> set[str]:
    found = set(re.findall(r'= "prunus\.([a-z_.]+):\w+"', (ROOT / "pyproject.toml").read_text()))
    assert found, "pyproject.toml names no command"
    found |= {name for name, tree in _trees().items() if "__main__" in _strings(tree)}
    for path in [*ROOT.glob("benchmarks/**/*.py"), *ROOT.glob("prunus/*.py")]:
        for statement, _ in drawing.statements(drawing.tree_of(path)):
            found |= set(drawing._targets(statement, MODULES))
        found |= {t.partition(":")[0].removeprefix("prunus.")
                  for t in _strings(drawing.tree_of(path))} & set(MODULES)  # fmt: skip
    return found


def test_every_module_is_reached_from_an_entry_point() -> None:
    """Outside `models/blocks`, what no command, script or benchmark uses is dead."""
    following = defaultdict(set)
    for one in _imports():
        following[one.source].add(one.target)
    for name in MODULES:
        following[name] |= _named_modules(name, name)
    reached, rest = set(), _entry_points()
    while rest:
        name = rest.pop()
        if name not in reached:
            reached.add(name)
            rest |= following[name]
    dead = {
        name
        for name, path in MODULES.items()
        if name not in reached
        and path.name != "__init__.py"
        and not name.startswith("models.blocks.")
    }
    _compare_with_known(dead, "unreachable")


def _tasks() -> set[str]:
    folders = (ROOT / "runtime" / "tasks").iterdir()
    return {p.name for p in folders if (p / "__init__.py").is_file()} | {"generic", "face"}


def _names_a_task(node: ast.expr) -> bool:
    values = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]
    return any(isinstance(v, ast.Constant) and v.value in _tasks() for v in values)


def _is_task(node: ast.expr) -> bool:
    return (isinstance(node, ast.Attribute) and node.attr == "task") or (
        isinstance(node, ast.Name) and node.id == "task"
    )


def _task_comparisons(tree: ast.Module) -> int:
    """Count comparisons of a task's name with a literal: what a row of a registry should say."""
    found = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            found += any(map(_is_task, sides)) and any(map(_names_a_task, sides))
        elif isinstance(node, ast.Match) and _is_task(node.subject):
            found += 1
    return found


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("card.task == 'pose'", 1),
        ("'codec' != card.task", 1),
        ("task in ('pose', 'segmentation')", 1),
        ("task not in {'codec'}", 1),
        ("match card.task:\n    case 'pose': pass", 1),
        ("card.task == other.task", 0),
        ("registry.find(card.task)", 0),
    ],
)
def test_the_search_finds_comparisons(code, count) -> None:
    assert _task_comparisons(ast.parse(code)) == count


def test_tasks_are_told_apart_by_registries_alone() -> None:
    found = {}
    for name, tree in _trees().items():
        if name.rpartition(".")[2] != "registry" and (count := _task_comparisons(tree)):
            found[_where(name)] = count
    _compare_with_known(found, "task comparisons")


def test_tests_mirror_the_tree() -> None:
    strays = [
        str(folder.relative_to(ROOT))
        for part in PARTS
        for folder in (ROOT / "tests" / part).rglob("*")
        if folder.is_dir() and any(folder.glob("test_*.py"))
        if not (ROOT / folder.relative_to(ROOT / "tests") / "__init__.py").is_file()
    ]
    assert not strays, f"no such folder in the source: {strays}"


def test_every_folder_is_a_package_and_typed() -> None:
    for part in PARTS:
        assert (ROOT / part / "py.typed").is_file()
        assert (ROOT / "prunus" / part).readlink() == Path("..") / part
        for folder in {path.parent for name, path in MODULES.items() if name.startswith(part)}:
            assert (folder / "__init__.py").is_file(), f"{folder} would be missing from the wheel"
        assert importlib.util.find_spec(f"prunus.{part}") is not None


def test_the_picture_is_what_the_code_says() -> None:
    picture = drawing.PICTURE.read_text()
    assert picture == drawing.draw(), "run: python docs/draw_architecture.py"
    assert all(f"{part}/" in picture for part in PARTS)


def test_tracked_files_stay_small() -> None:
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    total = sum(path.stat().st_size for path in files if path.is_file())
    assert total < 56 * 2**20, f"{total / 2**20:.1f} MiB of tracked files; the budget is 56 MiB"
