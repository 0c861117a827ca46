"""MJPEG over HTTP: our own web sink as the server, and servers with other habits."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
import socket
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.apps.io.sources import http as http_stream
from prunus.apps.io.sources.http import Parts
from prunus.apps.io.sources.registry import Frame, open_source
from prunus.apps.web.server import WebSink, open_web
from prunus.runtime.errors import PrunusError, SourceError
from prunus.runtime.limits import Limit


def jpeg(value):
    return cv2.imencode(".jpg", np.full((24, 32, 3), value, np.uint8))[1].tobytes()


class Server:
    """Answers every request with one body."""

    def __init__(self, kind, body):
        seen = self.seen = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                seen.append(self.headers.get("Authorization"))
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.http.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()


def parts(*bodies, length=True):
    out = b""
    for body in bodies:
        size = f"Content-Length: {len(body)}\r\n".encode() if length else b""
        out += b"--edge\r\nContent-Type: image/jpeg\r\n" + size + b"\r\n" + body + b"\r\n"
    return out + b"--edge--\r\n"


MULTIPART = 'multipart/x-mixed-replace; boundary="edge"'


@pytest.mark.parametrize("length", [True, False], ids=["with length", "without length"])
def test_reads_multipart_streams(length):
    body = parts(jpeg(10), jpeg(100), jpeg(200), length=length)
    with Server(MULTIPART, body) as server:
        with contextlib.closing(open_source(f"http://127.0.0.1:{server.port}/")) as source:
            values = [int(f.image.mean().round()) for f in source]
        assert values == [10, 100, 200]
        assert (source.info.width, source.info.height, source.info.live) == (32, 24, True)


def test_skips_damaged_pictures():
    body = parts(jpeg(10), b"\xff\xd8 broken", jpeg(200))
    with Server(MULTIPART, body) as server:
        with contextlib.closing(open_source(f"http://127.0.0.1:{server.port}/")) as source:
            assert len(list(source)) == 2
        assert "1 damaged" in source.warnings[0]


def test_sends_user_and_password():
    with Server(MULTIPART, parts(jpeg(1))) as server:
        open_source(f"http://me:secret@127.0.0.1:{server.port}/").close()
        assert server.seen == ["Basic " + base64.b64encode(b"me:secret").decode()]


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("text/html", b"<html>", "sends text/html"),
        (MULTIPART, b"", "ended before its first picture"),
        (MULTIPART, parts(*[b"nothing"] * 12), "damaged pictures in a row"),
    ],
)
def test_other_answers_are_errors(kind, body, said):
    with Server(kind, body) as server, pytest.raises(SourceError, match=said):
        open_source(f"http://127.0.0.1:{server.port}/")


class RawServer:
    """Hands each connection to a function, in a thread of its own; sees when it is told to stop."""

    def __init__(self, *serve):
        self.serve, self.connections, self.stop = serve, 0, threading.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/stream"

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                serve = self.serve[min(self.connections, len(self.serve) - 1)]
                self.connections += 1
                threading.Thread(target=self._one, args=(connection, serve), daemon=True).start()

    def _one(self, connection, serve):
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            serve(connection.sendall, self.stop)

    def __exit__(self, *_):
        self.stop.set()
        self.socket.close()


HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=edge\r\n\r\n"


def flood(start, again):
    def serve(send, stop):
        send(start)
        while not stop.is_set():
            send(again)

    return serve


def trickle(start):
    def serve(send, stop):
        send(start)
        while not stop.wait(0.05):
            send(b"a")

    return serve


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(http_stream, "ANSWER_S", 0.5)
    monkeypatch.setattr(http_stream, "PICTURE_S", 0.5)


PART = b"--edge\r\nContent-Type: image/jpeg\r\n"


@pytest.mark.parametrize(
    "serve",
    [
        trickle(b""),
        trickle(HEAD[:30]),
        flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        trickle(HEAD),
        trickle(HEAD + PART),
        trickle(HEAD + PART + b"\r\n"),
        trickle(HEAD + PART + b"Content-Length: 99\r\n\r\n"),
        lambda send, stop: stop.wait(5),
    ],
)
def test_servers_that_never_come_to_an_end_are_left(hasty, serve):
    with RawServer(serve) as server, pytest.raises(SourceError, match=r"not complete after 0\.5 s"):
        open_source(server.url)


@pytest.mark.parametrize(
    ("serve", "said"),
    [
        (flood(b"HTTP/1.0 200 OK\r\n", b"X-A: b\r\n"), "more than 100 headers"),
        (flood(HEAD[:30], b"a" * 4096), "(?i)line|header"),
        (flood(HEAD, b"a" * 65536), "between two pictures: the length of one picture"),
        (flood(HEAD, b"line\r\n" * 8192), "between two pictures"),
        (flood(HEAD + PART, b"X-A: b\r\n" * 64), "the header of one picture"),
        (flood(HEAD + PART + b"X-A: ", b"a" * 4096), "the header of one picture"),
        (flood(HEAD + PART + b"\r\n", b"a" * 65536), "the length of one picture"),
        (flood(HEAD + PART + b"Content-Length: -1\r\n\r\n", b"a" * 4096), "the length '-1'"),
        (flood(HEAD + PART + b"Content-Length: 9%s\r\n\r\n" % (b"9" * 12), b""), "one picture"),
        (flood(HEAD + PART + b"Content-Length: 9%s\r\n\r\n" % (b"9" * 6000), b""), "length '9"),
    ],
)
def test_servers_that_send_too_much_are_left(monkeypatch, serve, said):
    """However slow the machine is: what ends them are bytes, long before the time is over."""
    small = dataclasses.replace(http_stream.PICTURE_BYTES, most=1 << 18)
    monkeypatch.setattr(http_stream, "PICTURE_BYTES", small)
    for name in ("ANSWER_S", "PICTURE_S"):
        monkeypatch.setattr(http_stream, name, 300.0)
    with RawServer(serve) as server, pytest.raises(SourceError, match=said):
        open_source(server.url)


@pytest.mark.parametrize(
    ("declared", "delimiter"),
    [
        ("--edge", b"----edge"),
        ("--edge", b"--edge"),
        ("edge", b"--edge"),
        ('"edge of it"', b"--edge of it"),
        (None, b"--anything"),
    ],
)
def test_boundaries_after_the_rfc_and_as_cameras_write_them(declared, delimiter):
    kind = "multipart/x-mixed-replace" + (f"; boundary={declared}" if declared else "")
    body = parts(jpeg(10), jpeg(100)).replace(b"--edge", delimiter)
    with Server(kind, body) as server:
        with contextlib.closing(open_source(f"http://127.0.0.1:{server.port}/")) as source:
            assert [int(f.image.mean().round()) for f in source] == [10, 100]


def test_a_server_that_counts_too_few_bytes_loses_nothing():
    body = jpeg(10)
    short = body.join([PART + b"Content-Length: %d\r\n\r\n" % (len(body) - 7), b"\r\n"])
    with Server(MULTIPART, short + parts(jpeg(100))) as server:
        with contextlib.closing(open_source(f"http://127.0.0.1:{server.port}/")) as source:
            assert [int(f.image.mean().round()) for f in source] == [10, 100]
            assert not source.warnings


def breaks_off(send, stop):
    send(HEAD + parts(jpeg(10), jpeg(20)).removesuffix(b"--edge--\r\n"))


def completes(send, stop):
    send(HEAD + parts(jpeg(30)))


def test_a_stream_that_breaks_off_is_opened_again_and_the_gap_told(monkeypatch):
    monkeypatch.setattr("prunus.apps.io.sources.reconnect._LONGEST_WAIT", 0.01)
    with RawServer(breaks_off, breaks_off, completes) as server:
        with contextlib.closing(open_source(server.url)) as source:
            frames = [(f.index, int(f.image.mean().round())) for f in source]
        assert frames == [(0, 10), (1, 20), (2, 10), (3, 20), (4, 30)]
        assert any("interrupted 2 times" in line for line in source.warnings)


def test_without_reconnecting_an_early_end_is_an_error():
    with RawServer(breaks_off) as server:
        with contextlib.closing(open_source(server.url, reconnect=False)) as source:
            frames = iter(source)
            assert [next(frames).index, next(frames).index] == [0, 1]
            with pytest.raises(SourceError, match="stopped: the connection ended"):
                next(frames)


def test_closing_ends_the_waiting_for_a_picture_and_for_the_camera():
    def stalls(send, stop):
        send(HEAD + parts(jpeg(10)).removesuffix(b"--edge--\r\n"))
        stop.wait(20)

    for serve in (stalls, breaks_off):
        with RawServer(serve) as server:
            source = open_source(server.url)
            frames = iter(source)
            next(frames)
            threading.Timer(0.1, source.close).start()
            started = time.monotonic()
            assert len(list(frames)) <= 1
            assert time.monotonic() - started < 5


@pytest.mark.parametrize("ranges", [True, False])
def test_a_video_by_its_address_is_a_file(video, ranges):
    body = video.read_bytes()

    def serve(send, stop):
        head = b"HTTP/1.0 200 OK\r\nContent-Type: video/mp4\r\n"
        send(head + (b"Content-Length: %d\r\n" % len(body) if ranges else b"") + b"\r\n" + body)

    with contextlib.closing(open_source(str(video))) as source:
        expected = [f.image for f in source]
    with RawServer(serve) as server:
        with contextlib.closing(open_source(server.url + "/clip.mp4")) as source:
            frames = [f.image for f in source]
            assert (source.info.kind, source.info.live) == ("video", False)
            assert source.info.frames == len(frames)
    assert len(frames) == len(expected)
    assert all(np.array_equal(a, b) for a, b in zip(frames, expected, strict=True))


def test_a_picture_by_its_address_is_a_picture(portrait):
    with Server("image/jpeg", portrait.read_bytes()) as server:
        address = f"http://127.0.0.1:{server.port}/faces/one.jpg?size=full"
        with contextlib.closing(open_source(address)) as source:
            frames = list(source)
    assert [(f.name, f.image.shape) for f in frames] == [("one.jpg", (512, 512, 3))]
    assert source.info.kind == "picture"


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"Content-Length: 99999999999999\r\n", "the size of the download"),
        (b"Content-Length: -5\r\n", "No stream|the length '-5'"),
        (b"Content-Length: 500\r\n", "ended after 9 of 500 bytes"),
    ],
)
def test_downloads_that_lie_about_their_size(head, said):
    def serve(send, stop):
        send(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp4\r\n" + head + b"\r\nnot video")

    with RawServer(serve) as server, pytest.raises(SourceError, match=said):
        open_source(server.url)


def test_a_download_without_length_ends_at_the_limit(monkeypatch):
    monkeypatch.setattr(http_stream, "DOWNLOAD_BYTES", Limit("the size", 1 << 20, "bytes"))
    head = b"HTTP/1.0 200 OK\r\nContent-Type: video/mp4\r\n\r\n"
    with RawServer(flood(head, b"a" * 65536)) as server:
        with pytest.raises(SourceError, match="expected at most 1048576"):
            open_source(server.url + "/a.mp4")


def test_a_redirect_takes_no_password_to_another_server():
    with Server(MULTIPART, parts(jpeg(1))) as server:

        def leads_away(send, stop):
            where = f"http://127.0.0.1:{server.port}/"
            send(f"HTTP/1.0 302 Found\r\nLocation: {where}\r\n\r\n".encode())
            flood(b"", b"a" * 65536)(send, stop)

        with RawServer(leads_away) as first:
            open_source(first.url.replace("//", "//me:secret@")).close()
        assert server.seen == [None]


@pytest.mark.fuzz
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from(
                [b"--edge\r\n", b"--edge--\r\n", b"\r\n", b"\n", b"Content-Length: 5\r\n\r\n",
                 b"content-length:", b" 99999999\r\n", b"-1\r\n", b"\xff\xd8", b"\xff\xd9"]
            ),
        ),
        max_size=30,
    )
)  # fmt: skip
def test_any_bytes_are_parts_or_an_error(pieces):
    reader = Parts(io.BytesIO(b"".join(pieces)), b"edge")
    with contextlib.suppress(EOFError, ValueError, PrunusError):
        for _ in range(100):
            if reader.next() is None:
                break
        else:
            pytest.fail("more parts than bytes")


def test_web_sink_feeds_an_http_source():
    sink = WebSink("127.0.0.1", 0)
    image = np.full((48, 64, 3), 120, np.uint8)
    stop = threading.Event()

    def feed():
        while not stop.is_set():
            sink.write(Frame(0, image, "", 0), image)
            stop.wait(0.01)

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    try:
        page = urllib.request.urlopen(sink.name, timeout=5).read()
        assert b"/stream" in page
        with contextlib.closing(open_source(f"{sink.name}stream")) as source:
            frames = iter(source)
            assert abs(int(next(frames).image.mean()) - 120) <= 2
            assert abs(int(next(frames).image.mean()) - 120) <= 2
    finally:
        stop.set()
        feeder.join()
        sink.close()
    with pytest.raises(OSError):
        urllib.request.urlopen(sink.name, timeout=2)


def test_web_sink_refuses_a_taken_port_and_other_text():
    sink = WebSink("127.0.0.1", 0)
    try:
        with pytest.raises(SourceError, match="Cannot serve"):
            open_web(str(sink.port))
    finally:
        sink.close()
    with pytest.raises(SourceError, match="expected a port"):
        open_web("here")
