"""How a command ends."""

import errno
from dataclasses import dataclass

import pytest

from prunus.runtime.command import run_script


@dataclass(frozen=True)
class Nothing:
    """No options."""


@pytest.mark.parametrize("error", [BrokenPipeError(errno.EPIPE, "Broken pipe"), BrokenPipeError()])
def test_a_reader_of_a_pipe_who_has_gone_is_no_fault(tmp_path, monkeypatch, error) -> None:
    def call(options, console):
        raise error

    with (tmp_path / "stdout").open("w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        assert run_script(Nothing, call, name="demo", help="Try it.", words=()) == 0
        stdout.write("what was left")  # must not fail at the end of the program
    assert (tmp_path / "stdout").read_text() == ""
