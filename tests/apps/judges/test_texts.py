"""Texts beside recordings and in tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.apps.judges.texts import Texts, read_table
from prunus.runtime.errors import SourceError


@pytest.fixture
def table(tmp_path):
    def write(text):
        path = tmp_path / "texts"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_both_forms_of_a_table_are_read(table):
    path = table("\ufeffone.wav\tGo forward.\n\n<s> ten meters [now] <sil> </s> (two-2)\n")
    assert read_table(path) == {"one": "Go forward.", "two-2": "ten meters [now]"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no name here", "names no recording: 'no name here'"),
        ("one\tgo\none\tgo on", "names 'one' a second time"),
        ("one\t", "Line 1 of .* has no words"),
        ("one\tgo\ntwo\t7 miles", "Line 2 of .* has the number '7'"),
        ("<s> </s> (one)", "has no words"),
        ("\n", "holds no texts"),
    ],
)
def test_tables_that_do_not_fit_are_refused(table, text, message):
    with pytest.raises(SourceError, match=message):
        read_table(table(text))


def test_texts_lie_beside_their_recordings_or_in_the_table(tmp_path, table):
    (tmp_path / "one.txt").write_text("go forward", encoding="utf-8")
    texts = Texts(table("two\tand back\n"))
    sounds = [tmp_path / name for name in ("one.wav", "two.wav", "three.wav")]
    assert [texts.of(sound) for sound in sounds] == ["go forward", "and back", None]
    assert texts.notes([tmp_path], sounds) == []
    (tmp_path / "two.txt").write_text("and back", encoding="utf-8")
    with pytest.raises(SourceError, match=r"two\.wav has a text in .* and in two\.txt"):
        texts.of(sounds[1])


def test_texts_of_nothing_are_named(tmp_path, table):
    sounds = [tmp_path / "one.wav"]
    (tmp_path / "onne.txt").write_text("go", encoding="utf-8")
    texts = Texts(table("one\tgo\ntwo\tback\n"))
    texts.of(sounds[0])
    assert texts.notes([tmp_path], sounds) == [
        f"texts without a recording: two, {tmp_path / 'onne.txt'}"
    ]
    texts = Texts(table("1\tgo\n"))
    assert texts.of(sounds[0]) is None
    with pytest.raises(SourceError, match="names none of the 1 recordings; it has '1', they have"):
        texts.notes([], sounds)


def test_what_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "one.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceError, match=r"Cannot read .*one\.txt"):
        Texts().of(tmp_path / "one.wav")
    with pytest.raises(SourceError, match="Cannot read"):
        Texts(tmp_path / "none")


@pytest.mark.fuzz
@given(st.binary(max_size=200) | st.text(max_size=80).map(str.encode))
def test_any_table_is_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("table") / "texts"
    path.write_bytes(data)
    try:
        rows = read_table(path)
    except SourceError as error:
        assert error.message and error.hint
    else:
        assert rows and all(rows.values())
