import hashlib
import lzma
import os

import pytest

from prunus.models import unpack, zoo
from prunus.models.checkpoints.read import load_raw
from prunus.runtime.errors import ArtifactError, HostError
from prunus.runtime.limits import Limit

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


@pytest.fixture
def homeless(packed, tmp_path, monkeypatch):
    """Leave the temporary folder as the only place; returns what is ours there."""
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.delenv(unpack.CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp" / f"prunus-{os.getuid()}"


def test_a_folder_that_others_can_write_is_not_used(packed, homeless, tmp_path, monkeypatch):
    homeless.mkdir()
    homeless.chmod(0o777)
    with pytest.raises(HostError, match="can be written by other users"):
        unpack.unpacked(packed, SHA)
    homeless.rmdir()
    (tmp_path / "elsewhere").mkdir()
    homeless.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HostError, match="is not a folder"):
        unpack.unpacked(packed, SHA)
    homeless.unlink()
    assert unpack.unpacked(packed, SHA).is_relative_to(homeless)
    assert homeless.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(os, "getuid", lambda: homeless.stat().st_uid + 1)
    assert "can be written by other users" in unpack._not_ours(homeless)


def test_a_small_file_that_unpacks_to_a_large_one_is_refused(packed, monkeypatch):
    monkeypatch.setattr(unpack, "UNPACKED_BYTES", Limit("the unpacked size", 4 << 20, "bytes"))
    packed.write_bytes(lzma.compress(bytes(64 << 20), preset=0))
    with pytest.raises(ArtifactError, match=r"net\.onnx\.xz: the unpacked size is .*4194304"):
        unpack.unpacked(packed, SHA)
    packed.write_bytes(lzma.compress(b"a", preset=9))  # asks for 64 MiB of working memory
    with pytest.raises(ArtifactError, match=r"(?i)memory"):
        unpack.unpacked(packed, SHA)
    with pytest.raises(ArtifactError, match=r"(?i)memory"):
        load_raw(packed.rename(packed.with_name("weights.safetensors.xz")))
    assert not list((packed.parent / "cache" / "models").iterdir())


def test_bytes_behind_the_end_are_refused(packed):
    packed.write_bytes(packed.read_bytes() + b"more")
    with pytest.raises(ArtifactError, match="behind its end"):
        unpack.unpacked(packed, SHA)


def test_shipped_packed_graphs_open_under_their_names():
    packed = [e for e in zoo.entries() if e.file.endswith(".onnx.xz")]
    assert packed
    for entry in packed:
        path = zoo.model_path(entry.name)
        assert path.name == entry.file.removesuffix(".xz")
        assert hashlib.sha256(path.read_bytes()).hexdigest() == entry.plain_sha256
