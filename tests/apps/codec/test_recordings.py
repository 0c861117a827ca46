"""Recordings come with what is said in them, as long as they are whole."""

import numpy as np
import pytest

from prunus.apps.codec.recordings import find_recordings, read_recordings
from prunus.apps.judges.texts import Texts
from prunus.runtime.errors import SourceError

soundfile = pytest.importorskip("soundfile")


@pytest.fixture
def talks(tmp_path):
    folder = tmp_path / "talks"
    folder.mkdir()
    soundfile.write(folder / "one.wav", np.full(32000, 0.1), 16000, subtype="FLOAT")
    soundfile.write(folder / "two.flac", np.full((32000, 2), 0.1), 16000)
    (folder / "one.txt").write_text("go forward")
    return folder


def test_recordings_come_with_their_words(talks):
    one, two = read_recordings([talks])
    assert (one.name, one.text, two.text) == ("one.wav", "go forward", None)
    assert two.sound.shape == (32000,)


def test_what_is_cut_loses_its_text(talks):
    (cut,) = read_recordings([talks / "one.wav"], seconds=0.5)
    assert len(cut.sound) == 8000 and cut.text is None
    (whole,) = read_recordings([talks / "one.wav"], seconds=2.0)
    assert len(whole.sound) == 32000 and whole.text == "go forward"


def test_a_table_names_what_is_said(talks, tmp_path):
    table = tmp_path / "texts"
    table.write_text("two\tand back\n")
    found = read_recordings([talks], texts=Texts(table))
    assert [r.text for r in found] == ["go forward", "and back"]


def test_nothing_and_bad_texts_are_refused(talks, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="Found no recordings"):
        find_recordings([tmp_path / "empty"])
    (talks / "one.txt").write_text("")
    with pytest.raises(SourceError, match=r"one\.txt has no words"):
        read_recordings([talks])
    soundfile.write(talks / "one.wav", np.zeros(0), 16000)
    with pytest.raises(SourceError, match="holds no samples"):
        read_recordings([talks])
