"""The page for browsers: who may look, and what broken or hostile visitors can do."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
import urllib.parse

import cv2
import numpy as np
import pytest

from prunus.apps.io.sources.registry import Frame, open_source
from prunus.apps.web import server
from prunus.apps.web.server import WebSink, open_web
from prunus.runtime.errors import SourceError
from prunus.runtime.limits import Limit


def show(sink, value):
    image = np.full((24, 32, 3), value, np.uint8)
    sink.write(Frame(0, image, "", 0), image)


@pytest.fixture
def sink():
    with contextlib.closing(WebSink("127.0.0.1", 0)) as opened:
        show(opened, 10)
        yield opened


@pytest.fixture
def shared():
    """A page that listens on all addresses."""
    with contextlib.closing(WebSink("0.0.0.0", 0)) as opened:
        show(opened, 10)
        yield opened


def ask(sink, path="/frame.jpg", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", sink.port, timeout=5)
    connection.putrequest("GET", path, skip_host="Host" in headers)
    for name, value in headers.items():
        for text in value if isinstance(value, tuple) else (value,):
            connection.putheader(name, text)
    connection.endheaders()
    answer = connection.getresponse()
    body = b"" if path.startswith("/stream") else answer.read()
    connection.close()
    return answer.status, body


def test_a_port_alone_listens_to_this_machine_only():
    with contextlib.closing(open_web("0")) as opened:
        assert opened.host == "127.0.0.1" and not opened.token
        others = {a[4][0] for a in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
        for address in others - {"127.0.0.1"}:
            if not address.startswith("127."):
                with pytest.raises(OSError):
                    socket.create_connection((address, opened.port), timeout=0.5).close()


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:9000", "127.0.0.1:8080", "127.1.2.3", "[::1]:8080"]
)
def test_names_of_this_machine_are_answered(sink, host):
    assert ask(sink, Host=host)[0] == 200
    assert ask(sink, Host=host, Origin=f"http://{host}")[0] == 200


@pytest.mark.parametrize("path", ["/", "/frame.jpg", "/stream"])
@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example",
     "localhost@evil.example", "192.168.1.5", "", "[", ("localhost", "evil.example"), ()],
)  # fmt: skip
def test_other_names_are_refused(sink, path, host):
    assert ask(sink, path, Host=host)[0] == 403


def test_other_sites_are_refused(sink):
    for origin in ("http://evil.example", "null", "http://localhost:1", "http://["):
        assert ask(sink, Host="localhost:8080", Origin=origin)[0] == 403


def test_answers_are_of_no_use_to_other_sites(sink):
    connection = http.client.HTTPConnection("127.0.0.1", sink.port, timeout=5)
    connection.request("GET", "/frame.jpg")
    headers = connection.getresponse().headers
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Access-Control-Allow-Origin"] is None
    connection.close()


def test_beyond_loopback_a_token_is_needed(shared):
    token = urllib.parse.parse_qs(urllib.parse.urlsplit(shared.name).query)["token"][0]
    assert len(token) >= 20
    for path in ("/", "/frame.jpg", "/stream"):
        assert ask(shared, path)[0] == 403
        assert ask(shared, f"{path}?token=")[0] == 403
        assert ask(shared, f"{path}?token={token[:-1]}")[0] == 403
        assert ask(shared, f"{path}?token={token}")[0] == 200
    page = ask(shared, f"/?token={token}", Host="camera.local:8080")[1]
    assert f"/stream?token={token}".encode() in page
    with contextlib.closing(
        open_source(f"http://127.0.0.1:{shared.port}/stream?token={token}")
    ) as source:
        assert abs(int(next(iter(source)).image.mean()) - 10) <= 2
    with contextlib.closing(WebSink("0.0.0.0", 0)) as other:
        assert other.token != token


def test_a_token_may_be_chosen():
    with contextlib.closing(open_web("127.0.0.1:0?token=my%20own")) as opened:
        assert ask(opened, "/?token=my+own")[0] == 200
        assert ask(opened, "/")[0] == 403
    for text in ("8080?token=", "8080?tokn=a", "²", "1:²", "99999", "-1", "8080?token=a&token=b"):
        with pytest.raises(SourceError, match="expected a port"):
            open_web(text)


def test_the_newest_frame_is_served_although_nobody_watched(sink):
    for value in (100, 200):
        show(sink, value)
        image = cv2.imdecode(np.frombuffer(ask(sink)[1], np.uint8), cv2.IMREAD_COLOR)
        assert abs(int(image.mean()) - value) <= 2


def test_before_the_first_frame_there_is_none(monkeypatch):
    monkeypatch.setattr(server, "_WAIT_S", 0.05)
    with contextlib.closing(WebSink("127.0.0.1", 0)) as empty:
        assert ask(empty)[0] == 503


def test_so_many_connections_and_no_more(monkeypatch):
    monkeypatch.setattr(server, "WEB_CONNECTIONS", Limit("connections", 3, "connections"))
    with contextlib.closing(WebSink("127.0.0.1", 0)) as opened, contextlib.ExitStack() as stack:
        show(opened, 10)
        address = ("127.0.0.1", opened.port)
        idle = [stack.enter_context(socket.create_connection(address, 5)) for _ in range(3)]
        fourth = stack.enter_context(socket.create_connection(address, 5))
        with contextlib.suppress(ConnectionError):  # closed, or reset, at once
            assert fourth.recv(1) == b""
        for connection in idle:  # each ends its request, which frees a place
            connection.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            while connection.recv(4096):
                pass
        for _ in range(1000):  # the place is free a moment after the answer's end
            with contextlib.suppress(ConnectionError):
                assert ask(opened)[0] == 200
                break
        else:
            pytest.fail("no place became free")


def test_a_request_that_never_ends_is_ended(monkeypatch):
    monkeypatch.setattr(server, "REQUEST_S", 0.3)
    with contextlib.closing(WebSink("127.0.0.1", 0)) as opened:
        started = time.monotonic()
        with socket.create_connection(("127.0.0.1", opened.port), 5) as connection:
            connection.settimeout(0.02)
            connection.sendall(b"GET / HTTP/1.1\r\n")
            while time.monotonic() - started < 4:  # a byte now and then does not help
                try:
                    connection.sendall(b"a")
                    if connection.recv(1) == b"":
                        break
                except TimeoutError:
                    continue
                except ConnectionError:
                    break
        assert time.monotonic() - started < 3


def test_viewers_that_leave_say_nothing_on_the_terminal(sink, capfd):
    with socket.create_connection(("127.0.0.1", sink.port), 5) as connection:
        connection.sendall(b"GET http://[ HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert b"404" in connection.recv(100)
    for path in ("/stream", "/frame.jpg", "/"):
        with socket.create_connection(("127.0.0.1", sink.port), 5) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        for value in range(20):
            show(sink, value)
    assert ask(sink)[0] == 200
    sink.close()
    captured = capfd.readouterr()
    assert captured.err == "" and captured.out == ""
