import email.message
import hashlib
import http.server
import os
import re
import threading
import time
import types
import urllib.error
import urllib.request

import numpy as np
import pytest

from prunus.models import fetch as fetching
from prunus.models.fetch import fetch
from prunus.runtime.errors import ArtifactError, HostError, UsageError
from prunus.runtime.http_client import _Redirects
from prunus.runtime.limits import Limit

DATA = np.random.default_rng(0).bytes(3_000_001)
SHA256 = hashlib.sha256(DATA).hexdigest()


class _Server(http.server.ThreadingHTTPServer):
    """Serves DATA; knows ranges unless told otherwise; can hang up early."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.data = DATA
        self.ranges = True
        self.stop_after = None  # bytes of the body after which the connection closes
        self.length = True  # told; or a text that is told instead
        self.trickles = False
        self.asked = []  # the Range header of each request
        self.authorised = []  # its Authorization

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/weights.bin"


class _Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        server.authorised.append(self.headers.get("Authorization"))
        if self.path == "/moved.bin":
            self.send_response(302)
            self.send_header("Location", "/weights.bin")
            self.end_headers()
            return
        if self.path != "/weights.bin":
            self.send_error(404)
            return
        start, size = 0, len(server.data)
        if wanted and server.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            if start >= size:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{size}")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        else:
            self.send_response(200)
        if server.length:
            told = server.length if isinstance(server.length, str) else str(size - start)
            self.send_header("Content-Length", told)
        self.end_headers()
        for byte in server.data[:40] if server.trickles else b"":
            self.wfile.write(bytes([byte]))
            time.sleep(0.05)
        body = server.data[start:]
        self.wfile.write(body if server.stop_after is None else body[: server.stop_after])


@pytest.fixture
def server():
    with _Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


class _Recorder:
    def __init__(self):
        self.seen = []

    def update(self, done, total, note=""):
        self.seen.append((done, total))


def test_downloads_once(server, tmp_path):
    target, progress = tmp_path / "weights.bin", _Recorder()
    assert fetch(server.url, SHA256.upper(), target, progress=progress) == target
    assert target.read_bytes() == DATA
    assert progress.seen[-1] == (len(DATA), len(DATA))
    fetch(server.url, SHA256, target)
    assert server.asked == [None]
    assert [p.name for p in tmp_path.iterdir()] == ["weights.bin"]


def test_goes_on_after_an_interruption(server, tmp_path):
    target = tmp_path / "weights.bin"
    server.stop_after = 1_000_000
    with pytest.raises(HostError, match="ended after 1000000 of 3000001 bytes"):
        fetch(server.url, SHA256, target)
    assert not target.exists()
    with pytest.raises(HostError, match="ended after 2000000 of 3000001 bytes"):
        fetch(server.url, SHA256, target)
    server.stop_after = None
    progress = _Recorder()
    fetch(server.url, SHA256, target, progress=progress)
    assert target.read_bytes() == DATA
    assert server.asked == [None, "bytes=1000000-", "bytes=2000000-"]
    assert progress.seen[0][0] > 2_000_000


def test_headers_go_along_with_every_part(server, tmp_path):
    target = tmp_path / "weights.bin"
    server.stop_after = 1_000_000
    with pytest.raises(HostError):
        fetch(server.url, SHA256, target, headers={"Authorization": "Bearer x"})
    server.stop_after = None
    fetch(server.url, SHA256, target, headers={"Authorization": "Bearer x"})
    assert server.authorised == ["Bearer x"] * 2 and server.asked[1] == "bytes=1000000-"


def test_a_server_without_ranges_starts_over(server, tmp_path):
    target = tmp_path / "weights.bin"
    server.ranges, server.stop_after = False, 1_000_000
    with pytest.raises(HostError):
        fetch(server.url, SHA256, target)
    server.stop_after = None
    fetch(server.url, SHA256, target)
    assert target.read_bytes() == DATA
    assert server.asked == [None, "bytes=1000000-"]


def test_wrong_hash_keeps_nothing(server, tmp_path):
    target = tmp_path / "weights.bin"
    with pytest.raises(ArtifactError, match=f"has sha256 {SHA256}; expected {'0' * 64}"):
        fetch(server.url, "0" * 64, target)
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_another_file_is_thrown_away(server, tmp_path):
    (tmp_path / "weights.bin.part").write_bytes(b"\x00" * 1_000_000)
    fetch(server.url, SHA256, tmp_path / "weights.bin")
    assert (tmp_path / "weights.bin").read_bytes() == DATA
    assert server.asked == ["bytes=1000000-", None]


@pytest.mark.parametrize("extra", [b"", b"too long"])
def test_a_part_that_is_whole_or_too_long(server, tmp_path, extra):
    (tmp_path / "weights.bin.part").write_bytes(DATA + extra)
    fetch(server.url, SHA256, tmp_path / "weights.bin")
    assert (tmp_path / "weights.bin").read_bytes() == DATA
    assert len(server.asked) == (2 if extra else 1)


def test_a_damaged_target_is_replaced(server, tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"damaged")
    fetch(server.url, SHA256, tmp_path / "weights.bin")
    assert (tmp_path / "weights.bin").read_bytes() == DATA


def test_missing_file_and_missing_server(server, tmp_path):
    with pytest.raises(UsageError, match="answered 404"):
        fetch(server.url + ".other", SHA256, tmp_path / "a")
    with _Server() as closed:
        url = closed.url
    with pytest.raises(HostError, match="failed"):
        fetch(url, SHA256, tmp_path / "a", timeout_s=2)


def test_missing_folder(server, tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        fetch(server.url, SHA256, tmp_path / "none" / "weights.bin")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/a", "weights.bin", "https:///a"])
def test_other_addresses_are_refused(url, tmp_path):
    with pytest.raises(UsageError, match="expected https"):
        fetch(url, SHA256, tmp_path / "a")


def test_half_a_hash_is_refused(tmp_path):
    with pytest.raises(UsageError, match="64 hexadecimal"):
        fetch("https://host/a", SHA256[:8], tmp_path / "a")


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "pipe"])
def test_a_part_that_is_no_plain_file_is_left_alone(server, tmp_path, kind):
    other, part = tmp_path / "other", tmp_path / "weights.bin.part"
    if kind == "folder":
        part.mkdir()
    elif kind == "pipe":
        os.mkfifo(part)
    else:
        part.symlink_to(other)
    if kind == "link":
        other.write_bytes(b"precious")
    with pytest.raises(UsageError, match="is not a plain file"):
        fetch(server.url, SHA256, tmp_path / "weights.bin")
    assert server.asked == []
    assert other.exists() == (kind == "link")
    assert kind != "link" or other.read_bytes() == b"precious"


def test_a_link_that_appears_later_is_not_followed(tmp_path):
    (tmp_path / "part").symlink_to(tmp_path / "other")
    with pytest.raises(UsageError, match="Cannot write"):
        fetching._open_part(tmp_path / "part", 0)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("told", [True, False], ids=["with length", "without length"])
def test_downloads_beyond_the_limit_are_refused(server, tmp_path, monkeypatch, told):
    monkeypatch.setattr(fetching, "DOWNLOAD_BYTES", Limit("the size", 1 << 20, "bytes"))
    server.length = told
    with pytest.raises(UsageError, match="expected at most 1048576"):
        fetch(server.url, SHA256, tmp_path / "weights.bin")
    assert list(tmp_path.iterdir()) == []


def test_a_length_that_is_no_number(server, tmp_path):
    server.length = "-1"
    with pytest.raises(HostError, match="the length '-1'"):
        fetch(server.url, SHA256, tmp_path / "weights.bin")


def test_a_byte_now_and_then_is_given_up(server, tmp_path):
    server.trickles = True
    with pytest.raises(HostError, match=r"not complete after 0\.3 s"):
        fetch(server.url, SHA256, tmp_path / "weights.bin", timeout_s=0.3)


@pytest.mark.parametrize(
    "where", ["http://127.0.0.1:1/a", "ftp://127.0.0.1/a", "file:///etc/hosts"]
)
def test_no_way_leads_from_https_to_unprotected_addresses(where):
    request = urllib.request.Request("https://host.example/a")
    body = types.SimpleNamespace(close=lambda: None)
    headers = email.message.Message()
    headers["Location"] = where
    with pytest.raises((UsageError, urllib.error.HTTPError), match=r"leads from https|not allowed"):
        _Redirects().http_error_302(request, body, 302, "Found", headers)


def test_redirects_are_followed_with_the_range(server, tmp_path):
    (tmp_path / "weights.bin.part").write_bytes(DATA[:1000])
    fetch(server.url.replace("weights", "moved"), SHA256, tmp_path / "weights.bin")
    assert (tmp_path / "weights.bin").read_bytes() == DATA
    assert server.asked[-1] == "bytes=1000-"
