"""`prunus models fetch` against a server on this machine."""

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from prunus.apps.cli.main import main


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def served(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "vitpose small.pth").write_bytes(b"weights" * 1000)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/vitpose%20small.pth"
    server.shutdown()
    server.server_close()


def test_fetch_names_the_file_after_the_address(served, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    digest = hashlib.sha256(b"weights" * 1000).hexdigest()
    assert main(["models", "fetch", served, "--sha256", digest]) == 0
    assert (tmp_path / "vitpose small.pth").read_bytes() == b"weights" * 1000
    assert "models import" in capsys.readouterr().out


def test_other_content_is_refused_and_not_kept(served, tmp_path, capsys):
    target = tmp_path / "x.pth"
    assert main(["models", "fetch", served, "--sha256", "0" * 64, "-o", str(target)]) == 2
    assert not target.exists()
    assert "sha256" in capsys.readouterr().err
