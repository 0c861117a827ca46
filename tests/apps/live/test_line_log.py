"""The log of a live run: made lazily, whole at the end, and no reason to stop the run."""

import json
from contextlib import ExitStack

import pytest

from prunus.apps.live.line_log import LineLog


def test_lines_follow_the_head_and_the_file_is_told(tmp_path) -> None:
    path = tmp_path / "run.jsonl"
    with ExitStack() as stack:
        log = LineLog(path, {"model": "toy"}, stack)
        assert log.there
        log.add(lambda: {"seconds": 1.0})
        log.finish()
    assert log.told() == ((str(path),), [])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"model": "toy"}, {"seconds": 1.0},
    ]  # fmt: skip


def test_without_a_file_no_line_is_made() -> None:
    with ExitStack() as stack:
        log = LineLog(None, {}, stack)
        log.add(lambda: pytest.fail("made for nobody"))
        log.finish()
    assert not log.there and log.told() == ((), [])


def test_a_file_that_fails_stops_nobody(tmp_path, monkeypatch) -> None:
    with ExitStack() as stack:
        log = LineLog(tmp_path / "run.jsonl", {}, stack)

        def full(self, entry):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("prunus.apps.common.json_list.JsonListWriter.add", full)
        log.add(dict)
        log.add(lambda: pytest.fail("made for a file that has failed"))
        assert not log.there
        names, failures = log.told()
    assert names == () and len(failures) == 1 and "run.jsonl" in failures[0]
