"""Plant small faults in changed files, one at a time, and see whether their own tests notice.

    python tests/mutate.py [FILE ...]
    python tests/mutate.py --sample 200 [--seed 1] [FILE ...]

Without files: those of `runtime/` and `export/verify/` that differ from the branch main; with
`--sample`, all files of both parts, and of their faults that many, each as likely as any other.
A file is judged by its mirrored tests alone (`runtime/limits.py`: `tests/runtime/test_limits.py`),
where it has none by those that import it, else by those of its folder or the next one above with
tests; in a copy of the tree: the checkout is never changed. Ends with 1 where a file has no such
tests, or less than 90 % of the faults are noticed.

What counts: cosmic-ray's faults, but for those that cannot tell good tests from bad ones. Left out
where they are drawn, and counted: code that does not compile, or differs in annotations alone,
which nothing computes, or in the star of a signature. Never drawn: removed decorators (mostly
`dataclass` or `property`, without which nothing runs), arithmetic turned into operations on bits
or back (a crash on every float). cosmic-ray leaves strings alone: the wording of messages never
changes, numbers in it do. Faults that change nothing anyone can see stay in and count as missed.
Noticed are those with which a test fails, or with which the tests take a minute and five times as
long as without ("hung").

Each verdict is a line of `verdicts.jsonl` in the folder `--keep` as soon as it is known. It holds
for that faulty file and those tests: the same command after a stop judges what is left, and after
new tests what they bear on.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import hashlib
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
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("runtime", "export/verify")
LEAST = 0.9  # share of the faults that must be noticed
LONGEST_S = 120.0  # tests of a file that take longer without a fault are not worth the wait
_CONFIG = "mutate.toml"
_ARITHMETIC, _BITS = "(Add|Sub|Mul|Div|FloorDiv|Mod|Pow)", "(RShift|LShift|BitOr|BitAnd|BitXor)"
_POINTLESS = [
    "core/RemoveDecorator", f"core/ReplaceBinaryOperator_{_ARITHMETIC}_{_BITS}",
    f"core/ReplaceBinaryOperator_{_BITS}_{_ARITHMETIC}",
]  # fmt: skip


class Fault(NamedTuple):
    """One change of one file: which of the places where an operator of cosmic-ray applies."""

    file: str
    line: int
    column: int
    operator: str
    occurrence: int


def _listed(*words: str) -> list[str]:
    done = subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True)
    return [name for name in done.stdout.split("\0") if name]


def _modules(names: Sequence[str]) -> list[str]:
    return [n for n in names if n.endswith(".py") and not n.endswith("__init__.py")]


def changed() -> list[str]:
    """Return the files of the parts that differ from main, those not yet committed included."""
    words = ["--name-only", "--diff-filter=d", "--merge-base", "main", "--", *PARTS]
    return _modules(_listed("diff", "-z", *words))


def mirrored(name: str) -> Path:
    """Return where the tests of a file belong."""
    return Path("tests") / Path(name).parent / f"test_{Path(name).name}"


def tests_of(name: str) -> list[str]:
    """Return the mirrored tests of a file, else those that import it, else those of its folder.

    Paths are relative to the root; slow tests do not count. A folder without tests is judged by the
    one above it.
    """
    path = Path(name)
    if not (ROOT / path).is_file():
        return []
    if (ROOT / mirrored(name)).is_file():
        return [str(mirrored(name))]
    package = re.escape(f"prunus.{'.'.join(path.parent.parts)}")
    spelled = re.compile(
        rf"^\s*from {package}(\.{path.stem} import|[\w.]* import [^\n]*\b{path.stem}\b)", re.M
    )
    tests = sorted((ROOT / "tests").rglob("test_*.py"))
    found = [t for t in tests if spelled.search(t.read_text())]
    for folder in [*path.parents][:-1]:
        found = found or [t for t in tests if t.parent == ROOT / "tests" / folder]
    return [str(t.relative_to(ROOT)) for t in found]


def listed_faults(names: Sequence[str], tree: Path, keep: Path) -> list[Fault]:
    """Return all faults of files of a copied tree, in a fixed order; files once listed are kept."""
    kept = keep / "faults.json"
    known = json.loads(kept.read_text()) if kept.is_file() else {}
    states = {name: _hash((tree / name).read_text()) for name in names}
    if new := [name for name in names if states[name] not in known]:
        _configure(tree, new)
        base = tree / "all.sqlite"
        base.unlink(missing_ok=True)
        _tool(tree, "cosmic-ray", "init", _CONFIG, base.name)
        _tool(tree, "cr-filter-operators", base.name, _CONFIG)
        known.update({states[name]: [] for name in new})
        with closing(sqlite3.connect(base)) as rows:
            for file, *place in rows.execute(
                "SELECT module_path, start_pos_row, start_pos_col, operator_name, occurrence"
                " FROM mutation_specs WHERE job_id NOT IN (SELECT job_id FROM work_results)"
            ):
                known[states[file]].append(place)
        kept.write_text(json.dumps(known))
    return sorted(Fault(name, *place) for name in names for place in known[states[name]])


def drawn(found: Sequence[Fault], seed: int) -> Iterator[Fault]:
    """Yield all faults in an order in which each start is as likely as any; the seed says which."""
    yield from random.Random(seed).sample(found, len(found))


def planted(fault: Fault, code: str) -> str | None:
    """Return a file's text with the fault, None where that compiles to the same or not at all."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    after = mutate_code(code, get_operator(fault.operator)(), fault.occurrence)
    return after if after is not None and differs(code, after) else None


def differs(before: str, after: str) -> bool:
    """Tell whether code compiles and is another than before, annotations and comments apart."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `x is 1`
        try:
            compile(after, "after", "exec")
        except SyntaxError:
            return False
        return _computed(before) != _computed(after)


def _computed(code: str) -> str:
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, (ast.arg, ast.AnnAssign)):
            node.annotation = ast.Constant(None)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
        elif isinstance(node, ast.arguments):  # `*,` of a signature is no product to be replaced
            node.args = [*node.posonlyargs, *node.args, *node.kwonlyargs]
            node.defaults = [*node.defaults, *filter(None, node.kw_defaults)]
            node.posonlyargs, node.kwonlyargs, node.kw_defaults = [], [], []
    return ast.dump(tree)


class Judge:
    """Runs tests on a copied tree and keeps what they say.

    Args:
        tree: The copy.
        keep: Folder of the verdicts.
    """

    def __init__(self, tree: Path, keep: Path) -> None:
        self.tree = tree
        self._kept = keep / "verdicts.jsonl"
        lines = self._kept.read_text().splitlines() if self._kept.is_file() else []
        self._known = {row["key"]: row for row in map(json.loads, lines)}

    def alone(self, name: str, tests: Sequence[str]) -> float:
        """Return the seconds that the tests of a file take without a fault.

        Raises:
            SystemExit: They fail or take too long: whatever fails counts as a fault noticed.
        """
        row = self._judged({"file": name, "line": 0}, (self.tree / name).read_text(), tests,
                           LONGEST_S)  # fmt: skip
        if row["verdict"] != "missed":
            why = f"{row['verdict']} {row['by']}".strip()
            raise SystemExit(f"{' '.join(tests)} do not pass in {LONGEST_S:g} s ({why}).")
        return float(row["seconds"])

    def fault(self, fault: Fault, code: str, tests: Sequence[str], alone_s: float) -> Any:
        """Return the verdict on a fault: file, line, operator, difference, what noticed it."""
        before = (self.tree / fault.file).read_text()
        lines = difflib.unified_diff(before.splitlines(), code.splitlines(), lineterm="", n=1)
        about = {**fault._asdict(), "difference": "\n".join([*lines][2:])}
        return self._judged(about, code, tests, 60 + 5 * alone_s)

    def _judged(
        self, about: dict[str, Any], code: str, tests: Sequence[str], limit_s: float
    ) -> dict[str, Any]:
        key = _hash(about["file"], code, *(t + (self.tree / t).read_text() for t in tests))
        if key not in self._known:
            path = self.tree / about["file"]
            before = path.read_bytes()
            made = self.tree / ".pytest_cache" / "d" / "prunus-made"
            whole = {*made.glob("*")} if about["line"] else {*()}
            path.write_text(code)
            try:
                verdict = self._run(tests, limit_s)
            finally:
                path.write_bytes(before)
                for folder in {*made.glob("*")} - whole if about["line"] else ():
                    shutil.rmtree(folder, ignore_errors=True)
            self._known[key] = {**about, **verdict, "key": key}
            with self._kept.open("a") as file:
                file.write(json.dumps(self._known[key]) + "\n")
        return self._known[key]

    def _run(self, tests: Sequence[str], limit_s: float) -> dict[str, Any]:
        from cosmic_ray.testing import TestOutcome, run_tests

        began = time.monotonic()
        outcome, said = run_tests(shlex.join([
            "env", f"--chdir={self.tree}", *_variables(self.tree), sys.executable,
            "-m", "pytest", "-x", "-q", "-m", "not slow and not gpu", *tests,
        ]), limit_s)  # fmt: skip
        if outcome == TestOutcome.INCOMPETENT:
            raise SystemExit(said)
        by = re.search(r"^(FAILED|ERROR) (\S+)", said, re.M)
        verdict = "missed" if outcome == TestOutcome.SURVIVED else "noticed"
        return {
            "verdict": "hung" if said == "timeout" else verdict,
            "by": by[2] if by else "", "seconds": round(time.monotonic() - began, 1),
        }  # fmt: skip


def main(words: Sequence[str] | None = None) -> int:
    """Judge files and print what was missed; see the module docstring."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="*")
    parser.add_argument("--sample", type=int, default=0, help="how many faults, drawn at random")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--keep", type=Path, default=ROOT / ".cache" / "mutate", help="folder of the verdicts"
    )
    options = parser.parse_args(words)
    everything = _modules(_listed("ls-files", "-z", *PARTS)) if options.sample else changed()
    names = options.files or everything
    tests = {name: tests_of(name) for name in names}
    bare = [name for name in names if not tests[name]]
    for name in bare:
        print(f"{name}: no tests of its own, and none that import it or in its folder")
    if not (names := [name for name in names if name not in bare]):
        return int(bool(bare))
    options.keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="prunus-mutate-") as folder:
        tree = Path(folder) / "tree"
        _copy(tree)
        found = listed_faults(names, tree, options.keep)
        lone = sum(not (ROOT / mirrored(fault.file)).is_file() for fault in found)
        print(f"{len(found)} faults in {len(names)} files", end=", ")
        print(f"{lone} of them where no mirrored tests are", flush=True)
        order = drawn(found, options.seed)
        counts, failed = judge(order, options.sample, tests, Judge(tree, options.keep))
    for name, count in sorted(counts.items()):
        print(f"{name}: {_noticed(count)} of {count.total()} faults noticed")
    total = sum(counts.values(), Counter[str]())
    low = failed
    if not options.sample:
        low += sum(_noticed(count) < LEAST * count.total() for count in counts.values())
    if total:
        share = _noticed(total) / total.total()
        print(f"{_noticed(total)} of {total.total()} faults noticed, {share:.1%}", end="")
        print(f", {total['hung']} of them by tests that hung", end="")
        if options.sample:
            least, most = interval(_noticed(total), total.total())
            print(f" (95 %: {least:.1%} to {most:.1%})", end="")
            low += share < LEAST
        print()
    return int(low > 0 or bool(bare))


def judge(
    found: Iterator[Fault], count: int, tests: Mapping[str, Sequence[str]], judging: Judge
) -> tuple[dict[str, Counter[str]], int]:
    """Plant faults, as many as asked for or all (0); files whose tests are quick come first.

    Returns:
        Verdicts by file, and how many files have tests that do not pass without a fault.
    """
    tree = judging.tree
    chosen: dict[str, list[tuple[Fault, str]]] = {}
    empty = 0
    for fault in found:
        code = planted(fault, (tree / fault.file).read_text())
        empty += code is None
        if code is not None:
            chosen.setdefault(fault.file, []).append((fault, code))
        if count and sum(map(len, chosen.values())) == count:
            break
    print(f"{empty} more compute nothing else, or nothing at all: left out", flush=True)
    alone: dict[str, float] = {}
    for name in sorted(chosen):
        try:
            alone[name] = judging.alone(name, tests[name])
        except SystemExit as why:
            print(f"{name}: not judged, {why}", flush=True)
    counts: dict[str, Counter[str]] = {name: Counter() for name in alone}
    for name in sorted(alone, key=alone.__getitem__):
        for fault, code in sorted(chosen[name]):
            row = judging.fault(fault, code, tests[name], alone[name])
            counts[name][row["verdict"]] += 1
            if row["verdict"] == "missed":
                print(f"{name}:{fault.line} {fault.operator}\n{row['difference']}\n", flush=True)
    return counts, len(chosen) - len(alone)


def _noticed(count: Counter[str]) -> int:
    return count.total() - count["missed"]


def interval(noticed: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share (Wilson 1927), which holds near 1 as well."""
    z, share = 1.96, noticed / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(
        share * (1 - share) / total + z * z / (4 * total * total)
    )  # fmt: skip
    return middle - half, middle + half


def _hash(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def _copy(tree: Path) -> None:
    """Copy what git knows or would take, links as links."""
    for name in _listed("ls-files", "-z", "--cached", "--others", "--exclude-standard"):
        if os.path.lexists(ROOT / name):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name, follow_symlinks=False)


def _configure(tree: Path, names: Sequence[str]) -> None:
    (tree / _CONFIG).write_text("\n".join([
        "[cosmic-ray]", f"module-path = {json.dumps(list(names))}", "timeout = 1.0",
        "excluded-modules = []", 'test-command = "false"',
        "[cosmic-ray.distributor]", 'name = "local"',
        "[cosmic-ray.filters.operators-filter]",
        f"exclude-operators = {json.dumps(_POINTLESS)}", "",
    ]))  # fmt: skip


def _tool(tree: Path, program: str, *words: str) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name(program), *words],
        cwd=tree, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{program} {' '.join(words)} failed:\n{done.stdout}{done.stderr}")


def _variables(tree: Path) -> list[str]:
    # The copy comes first on the path, before an editable install of the checkout.
    return [f"PYTHONPATH={tree}", "PYTHONDONTWRITEBYTECODE=1"]


if __name__ == "__main__":
    sys.exit(main())
