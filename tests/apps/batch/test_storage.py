"""Whole files or none, tries that end, and errors that say what storage refused."""

import http.server
import threading

import pytest

pytest.importorskip("pyarrow")
from prunus.apps.batch import storage
from prunus.apps.batch.storage import StorageError, Store
from prunus.runtime.errors import HostError


@pytest.fixture(params=["folder", "file://", "memory://"])
def store(request, tmp_path):
    if request.param == "memory://":
        pytest.importorskip("fsspec")
        return Store(f"memory://{tmp_path.name}/out")
    return Store(f"{'file://' if request.param == 'file://' else ''}{tmp_path}/out")


def test_what_is_put_is_there_whole(store, tmp_path):
    assert store.files("results") == {} and not store.there("results/a")
    (tmp_path / "source").write_bytes(b"abc")
    for _ in range(2):
        store.put(tmp_path / "source", "results/a")
    assert store.there("results/a")
    assert [(name, stat.size) for name, stat in store.files("results").items()] == [("a", 3)]
    with store.read("results/a") as path:
        assert path.read_bytes() == b"abc"
    store.remove("results/a")
    store.remove("results/a")
    assert not store.there("results/a")


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    store = Store(str(tmp_path / "out"))
    store.put_text("old", "results/a")

    def break_off(source, target, size):
        target.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.shutil, "copyfileobj", break_off)
    with pytest.raises(HostError, match=r"No space left while writing .*results/a"):
        store.put_text("new", "results/a")
    assert (tmp_path / "out" / "results" / "a").read_text() == "old"
    assert [p.name for p in (tmp_path / "out").rglob("*") if p.is_file()] == ["a"]


def test_networks_get_three_tries_and_disks_one(monkeypatch):
    class Flaky:
        type_name = "s3"

    calls = []

    def call():
        calls.append(1)
        if len(calls) < 3:
            raise OSError("timeout")
        return "done"

    monkeypatch.setattr(storage, "_PAUSE", 0.0)
    assert storage._tried(Flaky(), call) == "done" and len(calls) == 3
    calls.clear()
    Flaky.type_name = "local"
    with pytest.raises(OSError, match="timeout"):
        storage._tried(Flaky(), call)


def test_a_bucket_without_rights_is_one_clear_error(monkeypatch):
    class Refuse(http.server.BaseHTTPRequestHandler):
        def __getattr__(self, name):
            if not name.startswith("do_"):
                raise AttributeError(name)
            return self._refuse

        def _refuse(self):
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words):
            pass

    monkeypatch.setattr(storage, "_PAUSE", 0.0)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"127.0.0.1%3A{server.server_port}"
        store = Store(f"s3://key:secret@bucket/out?endpoint_override={place}&scheme=http&region=x")
        with pytest.raises(StorageError, match=r"Cannot .* s3://bucket/out/a: ") as told:
            store.put_text("x", "a")
        assert "secret" not in str(told.value)
        server.shutdown()


@pytest.mark.parametrize("address", ["/proc/none", "nosuch://x/y", "s3://"])
def test_storage_that_cannot_be_used_is_named(address):
    with pytest.raises(StorageError, match=r"Cannot (write|open)"):
        Store(address).put_text("x", "a")
