import hashlib
import lzma
import os

import pytest

from prunus.models import unpack, zoo
from prunus.runtime.errors import ArtifactError, HostError

PLAIN = bytes(range(256)) * 64
SHA = hashlib.sha256(PLAIN).hexdigest()


@pytest.fixture
def packed(tmp_path, monkeypatch):
    monkeypatch.setenv(unpack.CACHE_VARIABLE, str(tmp_path / "cache"))
    file = tmp_path / "net.onnx.xz"
    file.write_bytes(lzma.compress(PLAIN))
    return file


def test_a_file_is_unpacked_once_and_mended_when_damaged(packed):
    path = unpack.unpacked(packed, SHA)
    assert path.name == "net.onnx" and path.read_bytes() == PLAIN
    before = path.stat().st_mtime_ns
    assert unpack.unpacked(packed, SHA) == path and path.stat().st_mtime_ns == before
    path.write_bytes(PLAIN[:-1])
    assert unpack.unpacked(packed, SHA).read_bytes() == PLAIN
    assert [p.name for p in path.parent.iterdir()] == ["net.onnx"]  # nothing half-written stays


def test_other_contents_and_damage_are_refused(packed):
    with pytest.raises(ArtifactError, match="does not hold"):
        unpack.unpacked(packed, "0" * 64)
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(ArtifactError, match="Cannot unpack"):
        unpack.unpacked(packed, SHA)
    assert not list((packed.parent / "cache" / "models").iterdir())


def test_a_place_that_cannot_be_written_is_named(packed, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv(unpack.CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(HostError, match=r"net\.onnx\.xz .*file"):
        unpack.unpacked(packed, SHA)


def test_without_a_home_the_temporary_folder_serves(packed, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.delenv(unpack.CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    path = unpack.unpacked(packed, SHA)
    assert path.is_relative_to(tmp_path / "tmp") and os.access(path, os.R_OK)


def test_shipped_packed_graphs_open_under_their_names():
    packed = [e for e in zoo.entries() if e.file.endswith(".onnx.xz")]
    assert packed
    for entry in packed:
        path = zoo.model_path(entry.name)
        assert path.name == entry.file.removesuffix(".xz")
        assert hashlib.sha256(path.read_bytes()).hexdigest() == entry.plain_sha256
