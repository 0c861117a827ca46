"""Options declared once: the command line and the table come from the dataclass."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from prunus.runtime.command import run_script
from prunus.runtime.errors import UsageError
from prunus.runtime.options import argument, build, group, option, parameters, table


@dataclass(frozen=True)
class Shared:
    threads: int | None = option("CPU threads.", default=None, minimum=1)


@dataclass(frozen=True)
class Options:
    source: str = argument("What is read.")
    mode: Literal["overlay", "blur"] = option("What is drawn.", default="overlay")
    scale: float = option("Factor.", default=1.0, minimum=0.5, maximum=2.0)
    sinks: tuple[str, ...] = option("Where it goes.", default=(), flags=("--sink",))
    smooth: bool = option("Leave joints unfiltered.", default=True)
    checkpoint: Path | None = option("Weights.", default=None, formerly=("--weights",))
    shared: Shared = group(Shared)


def _run(*words):
    seen = []
    code = run_script(
        Options,
        lambda options, console: seen.append((options, console)),
        name="demo",
        help="Try it.",
        words=words,
    )
    return code, seen


def test_words_become_the_dataclass() -> None:
    words = ("a.mp4", "--mode", "blur", "--sink", "x", "--sink", "y", "--no-smooth")
    code, [(options, console)] = _run(*words, "--threads", "3", "--quiet")
    assert code == 0 and console.quiet and not console.json
    assert options == Options("a.mp4", "blur", 1.0, ("x", "y"), False, None, Shared(3))


def test_defaults_are_those_of_the_dataclass() -> None:
    _, [(options, _)] = _run("a.mp4")
    assert options == Options("a.mp4")


def test_an_old_flag_works_and_says_the_new_name(capsys) -> None:
    _, [(options, _)] = _run("a.mp4", "--weights", "w.pt")
    assert options.checkpoint == Path("w.pt")
    assert "--weights is now --checkpoint" in capsys.readouterr().err


def test_an_old_flag_may_stand_for_a_word(capsys) -> None:
    @dataclass(frozen=True)
    class Words:
        package: Path = argument("What is unpacked.", formerly=("--package",))

    seen = []

    def run(*words):
        return run_script(
            Words, lambda options, _: seen.append(options), name="demo", help="Try it.", words=words
        )

    assert run("a") == run("--package", "b") == 0
    assert seen == [Words(Path("a")), Words(Path("b"))]
    assert "--package is now PACKAGE" in capsys.readouterr().err
    assert run() == 2
    assert "Missing argument 'PACKAGE'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--mode", "blurr"), "did you mean 'blur'?"),
        (("--scale", "9"), "expected 0.5 to 2"),
        (("--threads", "0"), "expected 1 or more"),
        (("--scael", "1"), "--scale"),
        (("--threads", "x"), "valid integer"),
    ],
)
def test_bad_words_are_two_lines(words, told, capsys) -> None:
    code, seen = _run("a.mp4", *words)
    lines = capsys.readouterr().err.splitlines()
    assert code == 2 and not seen
    assert len(lines) == 2 and told in lines[0]
    assert lines[0].startswith("error: ") and lines[1].startswith("hint: ")


def test_help_shows_every_option_uncut(capsys) -> None:
    code, seen = _run("-h")
    shown = capsys.readouterr().out
    assert code == 0 and not seen
    for parameter in parameters(Options):
        assert all(flag in shown for flag in parameter.flags)
    assert "One of: overlay, blur." in " ".join(shown.split()) and "--weights" not in shown


def test_python_callers_meet_the_same_bounds() -> None:
    with pytest.raises(UsageError, match="expected 1 or more"):
        build(Options, {"source": "a", "threads": 0})


def test_a_field_that_lies_is_a_fault_of_the_program() -> None:
    @dataclass(frozen=True)
    class Bare:
        scale: float = 1.0

    @dataclass(frozen=True)
    class Mute:
        scale: float = option(" ", default=1.0)

    @dataclass(frozen=True)
    class Twice:
        scale: float = option("Factor.", default=1.0)
        other: float = option("Factor.", default=1.0, flags=("--scale",))

    for options, told in ((Bare, "not made with"), (Mute, "no help"), (Twice, "two flags")):
        with pytest.raises(TypeError, match=told):
            parameters(options)


def test_the_table_has_a_row_for_each_option() -> None:
    rows = table(Options).splitlines()
    assert len(rows) == 2 + len(parameters(Options))
    assert "| `--mode` | overlay | What is drawn. (overlay, blur) |" in rows
