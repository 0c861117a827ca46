"""A bar on a terminal, a line per tenth elsewhere, or nothing."""

import io

from prunus.runtime.progress import ConsoleProgress, Silent


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_per_tenth_off_a_terminal() -> None:
    stream = io.StringIO()
    with ConsoleProgress("export", stream) as progress:
        for done in range(201):
            progress.update(done, 200, "trace")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 11
    assert lines[0].startswith("export: 0 %") and lines[-1].startswith("export: 100 %")
    assert all(line.endswith("trace") for line in lines)


def test_unknown_total_speaks_every_hundred() -> None:
    stream = io.StringIO()
    with ConsoleProgress("run", stream) as progress:
        for done in range(250):
            progress.update(done, 0)
    assert [line.split()[1] for line in stream.getvalue().splitlines()] == ["0", "100", "200"]


def test_bar_is_redrawn_in_place_and_ended() -> None:
    stream = Terminal()
    with ConsoleProgress("export", stream) as progress:
        progress.update(1, 4, "a long note")
        progress.update(4, 4)
    text = stream.getvalue()
    assert text.count("\r") == 2 and text.endswith("\n") and text.count("\n") == 1
    first, second = text.rstrip("\n").split("\r")[1:]
    assert "######.." in first and "#" * 24 in second
    assert len(second) >= len(first), "the shorter text must cover the longer one"


def test_nothing_shown_nothing_ended() -> None:
    stream = Terminal()
    with ConsoleProgress("export", stream):
        pass
    assert stream.getvalue() == ""
    Silent().update(1, 2, "x")


def test_the_rest_of_a_long_run_is_told(monkeypatch) -> None:
    stream = io.StringIO()
    stream.isatty = lambda: True
    progress = ConsoleProgress("batch", stream)
    progress.started -= 60
    progress.update(30, 90)
    assert ", 2.0 min left" in stream.getvalue()
    progress.update(90, 90)
    assert stream.getvalue().count("left") == 1
