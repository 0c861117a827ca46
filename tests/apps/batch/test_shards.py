"""The same rows are the same bytes; a damaged file is never taken for a whole one."""

import pytest

pytest.importorskip("pyarrow")
from prunus.apps.batch.shards import read_facts, read_rows, write_shard
from prunus.runtime.errors import ArtifactError

COLUMNS = (
    ("input", "string"), ("seconds", "double"), ("boxes", "list<double>"),
    ("shares", "map<double>"), ("codes", "list<list<int32>>"), ("mask", "binary"),
)  # fmt: skip


def _rows(count):
    for k in range(count):
        yield {"seconds": k / 7, "boxes": [float(k), 1.5], "shares": [("a", 0.25)],
               "codes": [[k, 2], [3, 4]], "mask": bytes([k % 256]) * 9}  # fmt: skip


def _write(path, count=2500):
    return write_shard(path, COLUMNS, _rows(count), {"input": "a.jpg"}, {"frames": 3})


def test_rows_come_back_and_facts_count_them(tmp_path):
    assert _write(tmp_path / "a") == 2500
    assert read_facts(tmp_path / "a", COLUMNS) == {"frames": 3, "rows": 2500}
    rows = list(read_rows(tmp_path / "a"))
    assert rows == [{"input": "a.jpg", **row} for row in _rows(2500)]


def test_an_input_without_rows_has_a_result_too(tmp_path):
    assert _write(tmp_path / "a", 0) == 0
    assert (
        read_facts(tmp_path / "a", COLUMNS)["rows"] == 0 and list(read_rows(tmp_path / "a")) == []
    )


def test_the_same_rows_are_the_same_bytes(tmp_path):
    for name in "ab":
        _write(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_any_damage_is_found(tmp_path):
    _write(path := tmp_path / "a", 20)
    whole = path.read_bytes()
    for cut in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ArtifactError):
            read_facts(path, COLUMNS)
    good = read_facts(_at(path, whole), COLUMNS), list(read_rows(path))
    wrong, noticed = [], 0
    for at in range(len(whole)):
        _at(path, whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
        try:
            if (read_facts(path, COLUMNS), list(read_rows(path))) != good:
                wrong.append(at)
        except ArtifactError:
            noticed += 1
    assert not wrong, f"damage that nobody noticed changed what was read: {wrong}"
    assert noticed > len(whole) / 2


def _at(path, data):
    path.write_bytes(data)
    return path


def test_a_file_of_another_maker_is_none_of_ours(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as parquet

    parquet.write_table(pa.table({"a": [1]}), tmp_path / "a")
    with pytest.raises(ArtifactError, match="does not say what it is"):
        read_facts(tmp_path / "a", COLUMNS)
    _write(tmp_path / "a")
    with pytest.raises(ArtifactError, match="has other columns: input, seconds"):
        read_facts(tmp_path / "a", COLUMNS[:3])
