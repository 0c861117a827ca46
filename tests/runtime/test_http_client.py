"""HTTP that ends: time counts for all that is read, and passwords stay where they were meant."""

import base64
import socket
import threading
import types
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from prunus.runtime.errors import UsageError
from prunus.runtime.http_client import NETWORK_ERRORS, Wire, _Redirects, content_length, open_url


@pytest.fixture
def wired():
    """A wire and the other end of its socket."""
    ours, theirs = socket.socketpair()
    wire = Wire(30)
    wire.attach(ours)
    yield wire, theirs
    wire.close()
    theirs.close()


def test_bytes_come_as_they_arrive_and_end_where_the_sender_ends(wired) -> None:
    wire, theirs = wired
    theirs.sendall(b"four")
    assert wire.readable() and wire.read(10) == b"four"
    theirs.close()
    assert wire.read(10) == b""


@pytest.mark.parametrize("left_s", [0.0, -0.5, -5.0])
def test_when_the_time_is_over_not_even_what_has_arrived_is_read(wired, left_s) -> None:
    wire, theirs = wired
    theirs.sendall(b"late")
    wire.allow(left_s)
    with pytest.raises(TimeoutError, match=f"not complete after {left_s:g} s"):
        wire.read(4)
    wire.allow(30)
    assert wire.read(4) == b"late"


def test_bytes_that_trickle_in_do_not_renew_the_time(wired, monkeypatch) -> None:
    wire, theirs = wired
    ticks = iter(map(float, range(100)))  # each look at the clock takes a second
    clock = types.SimpleNamespace(monotonic=lambda: next(ticks))
    monkeypatch.setattr("prunus.runtime.http_client.time", clock)
    theirs.sendall(b"abcdef")
    wire.allow(3)
    assert wire.read(1) + wire.read(1) == b"ab"
    with pytest.raises(TimeoutError, match="not complete after 3 s"):
        wire.read(1)
    wire.renew()
    assert wire.read(1) + wire.read(1) == b"cd"


def test_a_silent_sender_is_not_waited_for(wired) -> None:
    wire, _ = wired
    wire.allow(0.02)
    with pytest.raises(TimeoutError, match=r"not complete after 0\.02 s"):
        wire.read(1)


def test_without_a_connection_nothing_is_read_and_nothing_to_cut() -> None:
    wire = Wire(1)
    wire.cut()
    with pytest.raises(TimeoutError):
        wire.read(1)
    wire.close()


def test_a_cut_wakes_the_reader_and_a_second_one_does_nothing(wired) -> None:
    wire, _ = wired
    read = []
    reader = threading.Thread(target=lambda: read.append(wire.read(1)))
    reader.start()
    wire.cut()
    reader.join(10)
    assert read == [b""]
    wire.close()
    wire.cut()


@pytest.mark.parametrize(
    ("text", "length"), [(None, None), ("0", 0), (" 12 ", 12), ("9" * 24, int("9" * 24))]
)
def test_declared_lengths(text, length) -> None:
    assert content_length(text) == length


@pytest.mark.parametrize("text", ["", "-1", "+1", "1.5", "0x10", "²", "9" * 25, "1, 1"])
def test_lengths_that_are_none(text) -> None:
    with pytest.raises(ValueError, match="it declares the length"):
        content_length(text)


class _Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if to := self.server.leads.get(self.path):
            self.send_response(302)
            self.send_header("Location", to)
            self.send_header("Content-Length", "1000000000")  # never sent
            self.end_headers()
            return
        found = self.path == "/found"
        said = self.headers.get("Authorization", "none").encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body[::-1])

    def log_message(self, *words) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server():
    with HTTPServer(("127.0.0.1", 0), _Server) as made:
        made.leads = {}
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def _get(url, **options):
    answer = open_url(url, seconds=20, **options)
    with answer.body as body:
        return body.read(), answer.length


@pytest.mark.parametrize(
    ("who", "secret"), [("", None), ("me:it@", "me:it"), ("m%40e@", "m@e:"), (":a%3Ab@", ":a:b")]
)
def test_a_password_in_the_address_becomes_a_header(server, who, secret) -> None:
    said, length = _get(f"http://{who}127.0.0.1:{server.server_port}/found")
    expected = f"Basic {base64.b64encode(secret.encode()).decode()}" if secret else "none"
    assert said.decode() == expected and length == len(expected)


def test_a_password_stays_with_the_server_that_it_was_for(server) -> None:
    port = server.server_port
    server.leads = {"/same": "/found", "/other": f"http://localhost:{port}/found"}
    assert _get(f"http://me:it@127.0.0.1:{port}/same")[0].startswith(b"Basic ")
    assert _get(f"http://me:it@127.0.0.1:{port}/other")[0] == b"none"


def test_a_server_cannot_lead_to_other_schemes(server) -> None:
    server.leads = {"/file": "file:///etc/hostname", "/ftp": "ftp://127.0.0.1/x"}
    where = f"http://127.0.0.1:{server.server_port}"
    with pytest.raises(UsageError, match=r"127\.0\.0\.1 leads from http to ftp\."):
        _get(f"{where}/ftp")
    with pytest.raises(urllib.error.HTTPError, match="not allowed"):
        _get(f"{where}/file")


def test_what_is_sent_and_what_is_not_there(server) -> None:
    where = f"http://127.0.0.1:{server.server_port}"
    assert _get(f"{where}/put", method="PUT", body=b"abc") == (b"cba", None)
    with pytest.raises(urllib.error.HTTPError) as caught:
        _get(f"{where}/nowhere")
    assert caught.value.code == 404
    assert isinstance(caught.value, NETWORK_ERRORS)


def test_https_is_never_left_for_http() -> None:
    asked = urllib.request.Request("https://a.invalid/x", headers={"Authorization": "secret"})
    follow = _Redirects().redirect_request
    with pytest.raises(UsageError, match=r"a\.invalid leads from https to http\."):
        follow(asked, None, 302, "", {}, "http://a.invalid/x")
    same = follow(asked, None, 302, "", {}, "https://a.invalid/y")
    other = follow(asked, None, 302, "", {}, "https://b.invalid/y")
    assert same.has_header("Authorization") and not other.has_header("Authorization")
