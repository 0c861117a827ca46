"""Files, folders, patterns, lists and addresses: each input once, and none that is a result."""

from pathlib import Path

import pytest

from prunus.runtime.errors import SourceError, UsageError

pytest.importorskip("pyarrow")
from prunus.apps.batch.inputs import Input, expand

ENDINGS = (".jpg", ".mp4")


@pytest.fixture
def tree(tmp_path):
    for name in ("a.jpg", "b.MP4", "c.txt", "d/e.jpg", "d/f/g.jpg", "d/.hidden/h.jpg", "_x/i.jpg"):
        (path := tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * len(name))
    return tmp_path


def _names(tree, *sources, outside="/nowhere"):
    found = expand([str(s) for s in sources], ENDINGS, str(outside))
    return [str(Path(one.address).relative_to(tree)) for one in found]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["."], ["a.jpg", "b.MP4", "d/e.jpg", "d/f/g.jpg"]),
        (["a.jpg", "c.txt", "a.jpg"], ["a.jpg", "c.txt"]),
        (["*.jpg"], ["a.jpg"]),
        (["d/*"], ["d/e.jpg"]),
        (["**/*.jpg"], ["_x/i.jpg", "a.jpg", "d/.hidden/h.jpg", "d/e.jpg", "d/f/g.jpg"]),
        (["d/[a-f].jpg", "?.MP4"], ["b.MP4", "d/e.jpg"]),
    ],
)
def test_words_stand_for_files(tree, monkeypatch, words, expected):
    monkeypatch.chdir(tree)
    assert _names(tree, *words) == expected


def test_results_below_the_sources_are_no_inputs(tree):
    assert _names(tree, tree, outside=tree / "d") == ["a.jpg", "b.MP4"]


def test_a_list_may_name_what_is_missing(tree, monkeypatch):
    monkeypatch.chdir(tree)
    (tree / "list").write_text("# all\na.jpg\n\ngone.jpg\n")
    found = expand(["@list"], ENDINGS, "/nowhere")
    assert [(Path(one.address).name, one.size) for one in found] == [("a.jpg", 5), ("gone.jpg", -1)]


def test_an_address_keeps_what_opens_it_and_its_name_tells_no_secret(tree):
    [one] = expand([f"file://{tree}/a.jpg"], ENDINGS, "/nowhere")
    assert one.address == f"file://{tree}/a.jpg" and one.size == 5
    secret = Input("s3://key:secret@bucket/a.jpg?endpoint_override=h%3A1")
    assert secret.name == "s3://bucket/a.jpg" and secret.key == Input("s3://bucket/a.jpg").key
    assert Input("/what?.jpg").name == "/what?.jpg"


def test_a_file_system_of_fsspec(tree):
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open("memory://here/below/a.jpg", "wb") as file:
        file.write(b"abc")
    [one] = expand(["memory://here"], ENDINGS, "/nowhere")
    assert (one.address, one.size) == ("memory://here/below/a.jpg", 3)


def test_names_of_results_are_short_safe_and_different():
    keys = {Input(f"/{folder}/a b:c.jpg").key for folder in ("x", "y")}
    assert len(keys) == 2 and all(key.startswith("a-b-c.jpg-") for key in keys)
    assert len(Input("/" + "x" * 300).key) < 80


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        ([], UsageError, "There is no input"),
        (["gone.jpg"], SourceError, "names no file"),
        (["*.png"], SourceError, "names no file"),
        (["_x/empty"], SourceError, "searched for .jpg, .mp4"),
        (["@gone"], SourceError, "Cannot read the list gone"),
        (["ftps://x/y"], SourceError, "Cannot open ftps://x/y"),
    ],
)
def test_what_stands_for_nothing_is_refused(tree, monkeypatch, words, kind, said):
    monkeypatch.chdir(tree)
    (tree / "_x" / "empty").mkdir()
    with pytest.raises(kind, match=said):
        expand(words, ENDINGS, "/nowhere")
