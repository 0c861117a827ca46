"""Entries as a list, as lines, as a table, in a pipe."""

import csv
import json
import sys
from pathlib import Path

import pytest

from prunus.apps.common.json_list import JsonListWriter
from prunus.runtime.errors import SourceError

ENTRIES = [{"b": [1, 2.5], "a": {"x": 3}}, {"b": [4, 5], "a": {"x": 6}}]


def write(path, entries=ENTRIES):
    writer = JsonListWriter(path)
    for entry in entries:
        writer.add(entry)
    return writer


def test_a_list_gets_its_name_whole(tmp_path):
    path = tmp_path / "out.json"
    writer = write(path)
    assert not path.exists()
    writer.close()
    writer.close()
    assert json.loads(path.read_text()) == ENTRIES
    assert list(tmp_path.iterdir()) == [path]


def test_lines_are_whole_at_any_time(tmp_path):
    path = tmp_path / "out.jsonl"
    writer = write(path)
    assert [json.loads(line) for line in path.read_text().splitlines()] == ENTRIES
    writer.close()


def test_a_table_has_a_column_for_each_nested_value(tmp_path):
    path = tmp_path / "out.csv"
    write(path).close()
    rows = list(csv.DictReader(path.open()))
    assert rows == [{"b_0": "1", "b_1": "2.5", "a_x": "3"}, {"b_0": "4", "b_1": "5", "a_x": "6"}]


def test_a_table_refuses_a_field_that_has_no_column(tmp_path):
    writer = write(tmp_path / "out.csv")
    with pytest.raises(SourceError, match="no column for c"):
        writer.add({**ENTRIES[0], "c": 1})
    writer.close()


def test_standard_output_gets_lines(capsys):
    write(Path("-")).close()
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == ENTRIES
    assert not sys.stdout.closed


def test_a_reader_who_has_gone_is_told_from_a_full_disk(monkeypatch):
    writer = JsonListWriter(Path("-"))

    class Gone:
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(writer, "_file", Gone())
    with pytest.raises(BrokenPipeError):
        writer.add(ENTRIES[0])
    assert writer.entries == 0


def test_other_endings_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(SourceError, match=r"\.jsonl"):
        JsonListWriter(tmp_path / "out.xml")
    assert not list(tmp_path.iterdir())
