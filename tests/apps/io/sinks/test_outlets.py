"""Sinks of one run: one that fails takes nothing of the others along."""

import errno
import re
from contextlib import ExitStack

import pytest

from prunus.apps.io.sinks.outlets import Outlets
from prunus.runtime.card.artifact import atomic_path
from prunus.runtime.errors import SourceError


class _File:
    """A file of pieces; it fails at piece `fails` with `error`."""

    def __init__(self, path, stack, fails=99, error=None) -> None:
        self._file = stack.enter_context(stack.enter_context(atomic_path(path)).open("w"))
        self._fails, self._error = fails, error

    def write(self, number: int) -> None:
        if number == self._fails:
            raise self._error
        self._file.write(str(number))


FAULTS = [
    (OSError(errno.ENOSPC, "No space left on device"), "No space left while writing .*b.txt"),
    (SourceError("The speaker was lost.", "Plug it in."), "The speaker was lost"),
    (BrokenPipeError(errno.EPIPE, "Broken pipe"), "The reader of standard output has gone"),
]


@pytest.fixture
def stdout(tmp_path, monkeypatch):
    with (tmp_path / "stdout").open("w") as file:
        monkeypatch.setattr("sys.stdout", file)
        yield file


@pytest.mark.parametrize(("error", "words"), FAULTS)
@pytest.mark.parametrize("fails", [0, 2, 3])
def test_a_sink_fails_alone_and_is_told_once(tmp_path, stdout, error, words, fails) -> None:
    paths = [tmp_path / name for name in ("a.txt", "b.txt", "c.txt")]
    with ExitStack() as stack:
        outlets: Outlets[_File] = Outlets(stack)
        for path in paths:
            at = fails if path == paths[1] else 99
            outlets.add(str(path), lambda own, path=path, at=at: _File(path, own, at, error))
        for number in range(3):
            outlets.each(lambda sink, number=number: sink.write(number))
        outlets.finish(lambda sink: sink.write(3))
        (told,) = outlets.failures([str(path) for path in paths])
        assert re.search(words, told) and not told.endswith(".")
        assert outlets.lost == (str(paths[1]),)
        assert outlets.uris == (str(paths[0]), str(paths[2]))
    assert [path.exists() for path in paths] == [True, False, True]
    assert paths[0].read_text() == paths[2].read_text() == "0123"
    assert not list(tmp_path.glob(".*"))


def test_a_lone_pipe_whose_reader_had_enough_is_no_fault(tmp_path, stdout) -> None:
    with ExitStack() as stack:
        outlets: Outlets[_File] = Outlets(stack)
        outlets.add("-", lambda own: _File(tmp_path / "a", own, 0, BrokenPipeError()))
        outlets.each(lambda sink: sink.write(0))
        assert outlets.sinks == ()
        with pytest.raises(BrokenPipeError):
            outlets.failures(("-",))


def test_what_breaks_the_run_off_leaves_no_half_files(tmp_path) -> None:
    with pytest.raises(ValueError, match="source"), ExitStack() as stack:
        outlets: Outlets[_File] = Outlets(stack)
        outlets.add("a", lambda own: _File(tmp_path / "a", own))
        outlets.each(lambda sink: sink.write(0))
        raise ValueError("source")
    assert not list(tmp_path.iterdir())


def test_a_sink_that_cannot_be_opened_leaves_nothing(tmp_path) -> None:
    def opener(own):
        _File(tmp_path / "a", own)
        raise SourceError("No such device.", "")

    with ExitStack() as stack:
        outlets: Outlets[_File] = Outlets(stack)
        with pytest.raises(SourceError):
            outlets.add("a", opener)
        assert outlets.uris == ()
    assert not list(tmp_path.iterdir())
