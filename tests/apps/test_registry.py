"""One row is an app: `prunus run NAME` and `prunus eval NAME` come from it."""

from __future__ import annotations

import ast
import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from prunus.apps import registry
from prunus.apps.cli.apps import batch_verbs, eval_verbs, run_verbs
from prunus.apps.live.summary import Summary
from prunus.apps.registry import APPS, App
from prunus.runtime.errors import SourceError
from prunus.runtime.options import option, parameters
from prunus.runtime.references import load


@dataclass(frozen=True, slots=True)
class DummyOptions:
    """What the dummy does.

    \b
    Examples:
      prunus run dummy --times 2
      prunus eval dummy
    """

    times: int = option("How often it greets.", default=1, minimum=1, formerly=("--count",))
    fault: str = option("What goes wrong.", default="", choices=("", "warn", "stop", "break"))


@dataclass(frozen=True, slots=True, kw_only=True)
class DummySummary(Summary):
    fault: str
    quiet: bool

    def lines(self) -> list[str]:
        return ["hello"]

    def error(self) -> SourceError | None:
        return SourceError("It broke.", "Mend it.") if self.fault == "break" else None


class DummyScores:
    def to_dict(self) -> dict[str, Any]:
        return {"score": 1}

    def to_text(self) -> str:
        return "score 1"


def run_dummy(options: DummyOptions, *, quiet: bool = False) -> DummySummary:
    return DummySummary(
        model="none", outputs=("x",) * options.times, fault=options.fault, quiet=quiet,
        warnings=("cut",) if options.fault == "warn" else (), interrupted=options.fault == "stop",
    )  # fmt: skip


def evaluate_dummy(options: DummyOptions, progress: object) -> DummyScores:
    return DummyScores()


@pytest.fixture
def dummy(monkeypatch):
    here = f"{__name__}:"
    row = App("dummy", "Greet.", here + "DummyOptions", here + "run_dummy", "Judge greetings.",
              here + "DummyOptions", here + "evaluate_dummy")  # fmt: skip
    monkeypatch.setattr(registry, "APPS", (*APPS, row))


@pytest.mark.usefixtures("dummy")
def test_a_new_app_is_one_row(prunus):
    assert "dummy" in prunus("run", "--help").out and "dummy" in prunus("eval", "--help").out
    told = prunus("run", "dummy", "-h")
    assert told.code == 0 and "Greet." in told.out and "--times" in told.out
    ran = prunus("run", "dummy", "--times", 2, "--json", "--quiet")
    assert ran.code == 0
    body = json.loads(ran.out)
    assert body["outputs"] == ["x", "x"] and body["quiet"]
    assert json.loads(prunus("eval", "dummy", "--json").out) == {"score": 1}


@pytest.mark.usefixtures("dummy")
@pytest.mark.parametrize(("fault", "code"), [("warn", 1), ("stop", 130), ("break", 2)])
@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_every_app_ends_in_the_same_way(prunus, fault, code, quiet):
    ran = prunus("run", "dummy", "--fault", fault, *quiet)
    assert ran.code == code
    said = {"warn": "warning: cut", "stop": "", "break": "error: It broke."}[fault]
    assert said in ran.out + ran.err


@pytest.mark.usefixtures("dummy")
def test_bounds_choices_and_former_flags(prunus):
    assert "expected 1 or more" in prunus("run", "dummy", "--times", 0).err
    assert "did you mean 'warn'?" in prunus("run", "dummy", "--fault", "warm").err
    ran = prunus("run", "dummy", "--count", 3, "--json")
    assert "--count is now --times" in ran.err
    assert len(json.loads(ran.out)["outputs"]) == 3


@pytest.mark.parametrize("app", APPS, ids=lambda app: app.task)
def test_rows_name_what_exists(app):
    assert callable(load(app.run))
    assert bool(app.evaluate) == bool(app.eval_options) == bool(app.judges)
    assert bool(app.batch) == bool(app.batch_options) == bool(app.batches)
    for reference in filter(None, (app.options, app.eval_options, app.batch_options)):
        found = load(reference)
        assert parameters(found)
        assert "Examples:" in inspect.cleandoc(found.__doc__).partition("\n\n")[2]
    if app.evaluate:
        assert callable(load(app.evaluate))
        assert "output" in {p.name for p in parameters(load(app.eval_options))}


def test_tasks_are_different():
    assert len({v.name for v in run_verbs()}) == len(APPS)
    assert {v.name for v in eval_verbs()} == {app.task for app in APPS if app.evaluate}
    assert {v.name for v in batch_verbs()} == {app.task for app in APPS if app.batch}


def test_the_same_option_is_the_same_everywhere():
    """A flag that two apps share has one type, one default and one set of bounds."""
    free = {"source", "sinks", "model", "detect_every", "loss", "judge", "seconds", "hop", "boxes",
            "masks", "smooth", "sources"}  # fmt: skip
    known: dict[str, Any] = {}
    for app in APPS:
        for reference in filter(None, (app.options, app.eval_options, app.batch_options)):
            for p in parameters(load(reference)):
                told = (p.type, p.many, p.default, p.option.minimum, p.option.maximum, p.flags)
                if p.name not in free:
                    assert known.setdefault(p.name, told) == told, f"{reference}: {p.name}"


def test_only_the_command_line_knows_the_command_line_library():
    """Options are declared in dataclasses: no verb writes a signature for the library."""
    folder = Path(registry.__file__).parent
    allowed = {folder / "cli" / "verbs.py", folder / "cli" / "options.py",
               folder / "cli" / "export.py"}  # fmt: skip
    for path in folder.rglob("*.py"):
        if path in allowed or "exports" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [n for n in names if n.split(".")[0] == "typer"], path
