"""What a run learns from: noted at its beginning, and held to when it goes on."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

from prunus.models.training.data_record import DATA_RECORD, fingerprint, note_data, noted_counts
from prunus.runtime.errors import UsageError


@dataclass(frozen=True)
class Pieces:
    names: list
    array: np.ndarray


def test_every_part_counts_for_the_fingerprint() -> None:
    array = np.arange(6, dtype=np.int16)
    base = fingerprint(Pieces([b"ab", b"c"], array))
    assert fingerprint(Pieces([b"ab", b"c"], array[::2].repeat(2)[::1])) != base
    assert base == fingerprint(Pieces([b"ab", b"c"], array.copy()))
    others = (
        Pieces([b"a", b"bc"], array), Pieces([b"c", b"ab"], array), Pieces(["ab", b"c"], array),
        Pieces([b"ab", b"c"], array.reshape(2, 3)), Pieces([b"ab", b"c"], array.astype("u2")),
        Pieces([b"ab", [b"c"]], array), None,
    )  # fmt: skip
    assert len({base, *map(fingerprint, others)}) == 1 + len(others)


def test_changed_data_are_refused_and_nothing_is_written(tmp_path) -> None:
    note_data(tmp_path, {"pictures": 3}, {"pictures": "a" * 64}, begun=False)
    assert noted_counts(tmp_path) == {"pictures": 3}
    before = (tmp_path / DATA_RECORD).read_text()
    note_data(tmp_path, {"pictures": 3}, {"pictures": "a" * 64}, begun=True)
    for counts, hashes, said in (
        ({"pictures": 4}, {"pictures": "a" * 64}, "began with 3 pictures, now there are 4 picture"),
        (
            {"pictures": 3},
            {"pictures": "b" * 64},
            "pictures a{12}, now there are pictures b{12}\\.",
        ),
        ({"pictures": 3, "more": 1}, {"pictures": "a" * 64}, "now there are 1 more"),
        ({"pictures": 3}, {"pictures": "a" * 64, "seed": "1"}, "now there are seed 1"),
        ({"pictures": 3}, {}, "began with pictures a{12}"),
    ):
        with pytest.raises(UsageError, match=said):
            note_data(tmp_path, counts, hashes, begun=True)
    assert (tmp_path / DATA_RECORD).read_text() == before
    note_data(tmp_path, {"pictures": 4}, {"pictures": "b"}, begun=False)
    assert noted_counts(tmp_path) == {"pictures": 4} and len(list(tmp_path.iterdir())) == 1


def test_older_records_have_no_hashes(tmp_path) -> None:
    (tmp_path / DATA_RECORD).write_text(json.dumps({"pictures": 3}))
    with pytest.raises(UsageError, match="3 pictures"):
        note_data(tmp_path, {"pictures": 4}, {"pictures": "a"}, begun=True)
    with pytest.raises(UsageError, match="now there are pictures a"):
        note_data(tmp_path, {"pictures": 3}, {"pictures": "a"}, begun=True, older=False)
    note_data(tmp_path, {"pictures": 3}, {"pictures": "a"}, begun=True)
    with pytest.raises(UsageError, match="have changed"):  # from then on they are held to
        note_data(tmp_path, {"pictures": 3}, {"pictures": "b"}, begun=True)
    note_data(tmp_path / "none", {"pictures": 3}, {}, begun=True)
    with pytest.raises(UsageError, match="have changed"):
        note_data(tmp_path / "other", {"pictures": 3}, {}, begun=True, older=False)
    assert not (tmp_path / "other").exists()
