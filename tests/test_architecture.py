"""The arrows between the parts, read off the source itself."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("runtime", "models", "export", "apps")
# part -> parts it may import anywhere, and parts it may import inside functions only
ALLOWED = {
    "runtime": set(),
    "models": {"runtime"},
    "export": {"models", "runtime"},
    "apps": {"runtime"},
}
LAZY = {"runtime": set(), "models": set(), "export": set(), "apps": {"models", "export"}}
LIGHT = {"numpy", "prunus", *sys.stdlib_module_names}
# A kernel is defined by a decorator of its compiler; no other module imports one at module level.
KERNELS = {"runtime/plugins/local_global_attention/kernel.py"}


def _imports(tree: ast.Module) -> list[tuple[str, bool, int]]:
    """Return (module, inside a function or TYPE_CHECKING block, line) for each import."""
    found: list[tuple[str, bool, int]] = []

    def visit(node: ast.AST, lazy: bool) -> None:
        for child in ast.iter_child_nodes(node):
            inner = lazy or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                inner = True
            if isinstance(child, ast.Import):
                found.extend((a.name, lazy, child.lineno) for a in child.names)
            elif isinstance(child, ast.ImportFrom) and child.level == 0:
                names = [child.module or ""]
                if child.module == "prunus":
                    names = [f"prunus.{a.name}" for a in child.names]
                found.extend((n, lazy, child.lineno) for n in names)
            visit(child, inner)

    visit(tree, False)
    return found


def _sources(part: str) -> list[Path]:
    return sorted((ROOT / part).rglob("*.py"))


@pytest.mark.parametrize("part", PARTS)
def test_arrows(part: str) -> None:
    wrong = []
    for path in _sources(part):
        for module, lazy, line in _imports(ast.parse(path.read_text())):
            top, *rest = module.split(".")
            where = f"{path.relative_to(ROOT)}:{line} imports {module}"
            if top in PARTS:
                wrong.append(f"{where} by its bare folder name")
            if top != "prunus" or not rest or rest[0] == part:
                continue
            if rest[0] not in ALLOWED[part] | (LAZY[part] if lazy else set()):
                wrong.append(where)
    assert not wrong, "\n".join(wrong)


def test_runtime_needs_numpy_alone() -> None:
    wrong = []
    kernels = {k.removesuffix(".py").replace("/", ".") for k in KERNELS}
    for path in _sources("runtime"):
        allowed = LIGHT | ({"triton"} if str(path.relative_to(ROOT)) in KERNELS else set())
        for module, lazy, line in _imports(ast.parse(path.read_text())):
            heavy = module.removeprefix("prunus.") in kernels
            if not lazy and (heavy or module.split(".")[0] not in allowed):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {module} at module level")
    assert not wrong, "\n".join(wrong)


def test_no_relative_imports_and_no_catch_all_modules() -> None:
    for part in PARTS:
        for path in _sources(part):
            assert path.stem not in {"utils", "helpers", "common", "misc"}, path
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom):
                    assert node.level == 0, f"{path}:{node.lineno}"
                    assert all(a.name != "*" for a in node.names), f"{path}:{node.lineno}"


@pytest.mark.parametrize("part", PARTS)
def test_bare_import_is_refused(part: str) -> None:
    command = [sys.executable, "-c", f"import {part}"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert "pip install" in run.stderr


def test_every_folder_is_a_package_and_typed() -> None:
    for part in PARTS:
        assert (ROOT / part / "py.typed").is_file()
        for folder in {p.parent for p in _sources(part)}:
            assert (folder / "__init__.py").is_file(), f"{folder} would be missing from the wheel"
        assert importlib.util.find_spec(f"prunus.{part}") is not None


def test_tracked_files_stay_small() -> None:
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    total = sum(path.stat().st_size for path in files if path.is_file())
    assert total < 40 * 2**20, f"{total / 2**20:.1f} MiB of tracked files; the budget is 40 MiB"
