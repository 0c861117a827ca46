"""Plant small faults in changed files, one at a time, and see whether their own tests notice.

    python tests/mutate.py [FILE ...]

Without files: those of `runtime/` and `export/verify/` that differ from the branch main. Each file
is judged by its mirrored tests alone (`runtime/audio/pcodec.py`: `tests/runtime/audio/
test_pcodec.py`), in a copy of the tree: the checkout is never changed. Ends with 1 where a file has
no such tests, or less than 90 % of its faults are noticed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("runtime", "export/verify")
LEAST = 0.9  # share of the faults that must be noticed
TIMEOUT_S = 120.0  # a fault that makes the tests hang is noticed as well
# `X | None` in annotations is never computed; a decorator is mostly `dataclass` or `property`,
# without which nothing runs.
_POINTLESS = ["core/ReplaceBinaryOperator_BitOr_.*", "core/RemoveDecorator"]


def changed() -> list[str]:
    """Return the files of the parts that differ from main, those not yet committed included."""
    words = ["git", "diff", "--name-only", "--diff-filter=d", "--merge-base", "main", "--", *PARTS]
    found = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [name for name in found.split() if name.endswith(".py")]


def tests_of(name: str) -> Path | None:
    """Return the mirrored tests of a file, relative to the root; None where there are none."""
    path = Path(name)
    mirrored = Path("tests") / path.parent / f"test_{path.name}"
    return mirrored if (ROOT / mirrored).is_file() else None


def judge(name: str, tests: Path, tree: Path) -> tuple[int, list[str]]:
    """Plant every fault in one file of a copied tree.

    Args:
        name: The file, relative to the root.
        tests: Its tests, relative to the root.
        tree: The copy.

    Returns:
        How many faults were planted, and the differences of those that nobody noticed.
    """
    command = f"{sys.executable} -m pytest -x -q {tests}"
    settings = {
        "module-path": name, "timeout": TIMEOUT_S, "excluded-modules": [], "test-command": command,
    }  # fmt: skip
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    (tree / "mutate.toml").write_text(
        "\n".join([
            "[cosmic-ray]", *lines, '[cosmic-ray.distributor]', 'name = "local"',
            "[cosmic-ray.filters.operators-filter]",
            f"exclude-operators = {json.dumps(_POINTLESS)}", "",
        ])
    )  # fmt: skip
    session = tree / "mutate.sqlite"
    session.unlink(missing_ok=True)
    # Its own tests must pass first: whatever fails counts as a fault that was noticed.
    if _run(tree, sys.executable, "-m", "pytest", "-x", "-q", str(tests)).returncode:
        raise SystemExit(f"{tests} do not pass (or none ran); nothing can be learnt from them.")
    for words in (
        ("cosmic-ray", "init", "mutate.toml", session.name),
        ("cr-filter-operators", session.name, "mutate.toml"),
        ("cosmic-ray", "exec", "mutate.toml", session.name),
    ):
        done = _run(tree, str(Path(sys.executable).with_name(words[0])), *words[1:])
        if done.returncode:
            raise SystemExit(f"{' '.join(words)} failed:\n{done.stdout}{done.stderr}")
    tool = str(Path(sys.executable).with_name("cosmic-ray"))
    rows = [json.loads(line) for line in _run(tree, tool, "dump", session.name).stdout.splitlines()]
    results = [result for _, result in rows if result and result["worker_outcome"] == "normal"]
    missed = [r["diff"] for r in results if r["test_outcome"] != "killed"]
    return len(results), missed


def main(names: list[str]) -> int:
    """Judge files and print a line for each; see the module docstring."""
    low = False
    with tempfile.TemporaryDirectory(prefix="prunus-mutate-") as folder:
        tree = Path(folder) / "tree"
        _copy(tree)
        for name in names or changed():
            tests = tests_of(name)
            if tests is None:
                print(f"{name}: no mirrored tests")
                low = True
                continue
            planted, missed = judge(name, tests, tree)
            share = 1 - len(missed) / planted if planted else 1.0
            low |= share < LEAST
            for difference in missed:
                print(difference, end="\n\n")
            print(f"{name}: {planted - len(missed)} of {planted} faults noticed, {share:.0%}")
    return int(low)


def _copy(tree: Path) -> None:
    """Copy what git knows or would take, links as links."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, found.split("\0")):
        if os.path.lexists(ROOT / name):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name, follow_symlinks=False)


def _run(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # The copy comes first on the path, before an editable install of the checkout.
    variables = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        words, cwd=tree, env=variables, capture_output=True, text=True, check=False
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
