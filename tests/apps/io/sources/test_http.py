"""MJPEG over HTTP: our own web sink as the server, and servers with other habits."""

from __future__ import annotations

import base64
import contextlib
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

from prunus.apps.io.sources.registry import Frame, open_source
from prunus.apps.web.server import WebSink, open_web
from prunus.runtime.errors import SourceError


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
