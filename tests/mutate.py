"""Plant small faults in changed files, one at a time, and see whether their own tests notice.

    python tests/mutate.py [FILE ...]
    python tests/mutate.py --sample 200 [--seed 1] [FILE ...]

Without files: those of `runtime/` and `export/verify/` that differ from the branch main; with
`--sample`, all files of both parts, and of their faults that many, each as likely as any other.
A file is judged by its mirrored tests alone (`runtime/audio/pcodec.py`: `tests/runtime/audio/
test_pcodec.py`), where it has none by those that import it, else by those of its folder; in a copy
of the tree: the checkout is never changed. Ends with 1 where a file has no such tests, or less than
90 % of the faults are noticed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("runtime", "export/verify")
LEAST = 0.9  # share of the faults that must be noticed
TIMEOUT_S = 240.0  # a fault that makes the tests hang is noticed as well
# `X | None` in annotations is never computed; a decorator is mostly `dataclass` or `property`,
# without which nothing runs.
_POINTLESS = ["core/ReplaceBinaryOperator_BitOr_.*", "core/RemoveDecorator"]
_CONFIG = "mutate.toml"


def _listed(*words: str) -> list[str]:
    done = subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True)
    return [name for name in done.stdout.split("\0") if name]


def _modules(names: Sequence[str]) -> list[str]:
    return [n for n in names if n.endswith(".py") and not n.endswith("__init__.py")]


def changed() -> list[str]:
    """Return the files of the parts that differ from main, those not yet committed included."""
    words = ["--name-only", "--diff-filter=d", "--merge-base", "main", "--", *PARTS]
    return _modules(_listed("diff", "-z", *words))


def tests_of(name: str) -> list[str]:
    """Return the mirrored tests of a file, else those that import it, else those of its folder.

    Paths are relative to the root; slow tests do not count.
    """
    path = Path(name)
    mirrored = Path("tests") / path.parent / f"test_{path.name}"
    if (ROOT / mirrored).is_file():
        return [str(mirrored)]
    package = re.escape(f"prunus.{'.'.join(path.parent.parts)}")
    spelled = re.compile(
        rf"^\s*from {package}(\.{path.stem} import|[\w.]* import [^\n]*\b{path.stem}\b)", re.M
    )
    tests = sorted((ROOT / "tests").rglob("test_*.py"))
    found = [t for t in tests if spelled.search(t.read_text())]
    found = found or [t for t in tests if t.parent == ROOT / "tests" / path.parent]
    return [str(t.relative_to(ROOT)) for t in found] if (ROOT / name).is_file() else []


def plan(names: Sequence[str], tree: Path) -> Path:
    """Return the session of all faults of files of a copied tree; nothing is planted yet."""
    session = tree / "all.sqlite"
    _configure(tree, names, "false")
    _tool(tree, "cosmic-ray", "init", _CONFIG, session.name)
    _tool(tree, "cr-filter-operators", session.name, _CONFIG)
    return session


def faults(session: Path) -> dict[str, str]:
    """Return the file of each fault that is still to be planted, by the fault's key."""
    with closing(sqlite3.connect(session)) as base:
        return dict(base.execute(
            "SELECT job_id, module_path FROM mutation_specs"
            " WHERE job_id NOT IN (SELECT job_id FROM work_results)"
            " ORDER BY module_path, start_pos_row, start_pos_col, operator_name, operator_args"
        ))  # fmt: skip


def drawn(found: dict[str, str], count: int, seed: int) -> dict[str, str]:
    """Return some of the faults, each as likely as any other; the same for the same seed."""
    places = sorted(random.Random(seed).sample(range(len(found)), min(count, len(found))))
    entries = list(found.items())
    return dict(entries[place] for place in places)


def judge(
    name: str, tests: Sequence[str], keys: Sequence[str], session: Path
) -> tuple[int, list[str]]:
    """Plant faults in one file of a copied tree, one after another.

    Args:
        name: The file, relative to the root.
        tests: Its tests, relative to the root.
        keys: Which faults of the session.
        session: All faults of the tree in whose root it lies.

    Returns:
        How many faults were planted, and the differences of those that nobody noticed.

    Raises:
        SystemExit: The tests do not pass without a fault, or take half of what counts as hanging.
    """
    tree = session.parent
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow and not gpu", *tests]
    # Its own tests must pass first: whatever fails counts as a fault that was noticed.
    began = time.monotonic()
    if _run(tree, *command).returncode or time.monotonic() - began > TIMEOUT_S / 2:
        raise SystemExit(f"{' '.join(tests)} do not pass in {TIMEOUT_S / 2:g} s: not judged.")
    own = Path(shutil.copy2(session, tree / "own.sqlite"))
    with closing(sqlite3.connect(own)) as base, base:
        kept = ",".join("?" * len(keys))
        for table in ("work_results", "mutation_specs", "work_items"):
            base.execute(f"DELETE FROM {table} WHERE job_id NOT IN ({kept})", keys)
    _configure(tree, [name], shlex.join(command))
    _tool(tree, "cosmic-ray", "exec", _CONFIG, own.name)
    rows = [json.loads(r) for r in _tool(tree, "cosmic-ray", "dump", own.name).splitlines()]
    results = [result for _, result in rows if result and result["worker_outcome"] == "normal"]
    missed = [r["diff"] for r in results if r["test_outcome"] != "killed"]
    return len(results), missed


def main(words: Sequence[str] | None = None) -> int:
    """Judge files and print a line for each; see the module docstring."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="*")
    parser.add_argument("--sample", type=int, default=0, help="how many faults, drawn at random")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(words)
    everything = _modules(_listed("ls-files", "-z", *PARTS)) if options.sample else changed()
    names = options.files or everything
    bare = [name for name in names if not tests_of(name)]
    for name in bare:
        print(f"{name}: no tests of its own, and none that import it or in its folder")
    if not (names := [name for name in names if name not in bare]):
        return int(bool(bare))
    total = noticed = low = 0
    with tempfile.TemporaryDirectory(prefix="prunus-mutate-") as folder:
        tree = Path(folder) / "tree"
        _copy(tree)
        session = plan(names, tree)
        found = faults(session)
        if options.sample:
            found = drawn(found, options.sample, options.seed)
        for name in sorted(set(found.values())):
            keys = [key for key, file in found.items() if file == name]
            try:
                planted, missed = judge(name, tests_of(name), keys, session)
            except SystemExit as why:
                print(f"{name}: {why}", flush=True)
                low += 1
                continue
            low += not options.sample and planted - len(missed) < LEAST * planted
            for difference in missed:
                print(difference, end="\n\n")
            print(f"{name}: {planted - len(missed)} of {planted} faults noticed", flush=True)
            total, noticed = total + planted, noticed + planted - len(missed)
    if total:
        share = noticed / total
        spread = 1.96 * math.sqrt(share * (1 - share) / total)
        sure = f"{share - spread:.1%} to {min(1.0, share + spread):.1%}"
        print(f"{noticed} of {total} faults noticed, {share:.1%}", end="")
        print(f" (95 %: {sure})" if options.sample else "")
        low += bool(options.sample) and share < LEAST
    return int(low > 0 or bool(bare))


def _copy(tree: Path) -> None:
    """Copy what git knows or would take, links as links."""
    for name in _listed("ls-files", "-z", "--cached", "--others", "--exclude-standard"):
        if os.path.lexists(ROOT / name):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name, follow_symlinks=False)


def _configure(tree: Path, names: Sequence[str], command: str) -> None:
    settings = {
        "module-path": list(names), "timeout": TIMEOUT_S, "excluded-modules": [],
        "test-command": command,
    }  # fmt: skip
    (tree / _CONFIG).write_text("\n".join([
        "[cosmic-ray]", *(f"{key} = {json.dumps(value)}" for key, value in settings.items()),
        "[cosmic-ray.distributor]", 'name = "local"',
        "[cosmic-ray.filters.operators-filter]",
        f"exclude-operators = {json.dumps(_POINTLESS)}", "",
    ]))  # fmt: skip


def _tool(tree: Path, program: str, *words: str) -> str:
    done = _run(tree, str(Path(sys.executable).with_name(program)), *words)
    if done.returncode:
        raise SystemExit(f"{program} {' '.join(words)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def _run(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # The copy comes first on the path, before an editable install of the checkout.
    variables = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        words, cwd=tree, env=variables, capture_output=True, text=True, check=False
    )


if __name__ == "__main__":
    sys.exit(main())
