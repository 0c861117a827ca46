"""A page for browsers: the newest frame as MJPEG, from the standard library's HTTP server.

Who may look: on a loopback address every program of this machine, but no website that a browser of
this machine has open (a website can give its own name the address 127.0.0.1 and then read answers,
so the name that was asked for is compared); on other addresses whoever has the token.
"""

from __future__ import annotations

import hmac
import html
import io
import ipaddress
import logging
import secrets
import socket
import sys
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prunus.apps.io.frames import Frame, Image, SourceInfo
from prunus.runtime.errors import SourceError
from prunus.runtime.http_client import Wire
from prunus.runtime.limits import REQUEST_S, WEB_CONNECTIONS
from prunus.runtime.pictures.opencv import load_cv2

_BOUNDARY = "prunusframe"
_QUALITY = 85
_WAIT_S = 5.0  # for a new frame
_LOG = logging.getLogger(__name__)
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>html,body{{margin:0;height:100%;background:#14161a;color:#cfd3da;font:14px system-ui}}
body{{display:flex;flex-direction:column;align-items:center;justify-content:center}}
img{{max-width:100%;max-height:94vh;object-fit:contain}}</style>
<img src="{stream}" alt="live view"><p>{title}</p></html>
"""
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class NewestJpeg:
    """The newest frame as JPEG, encoded once for all viewers, when the first of them asks."""

    def __init__(self) -> None:
        self._changed, self._encoding = threading.Condition(), threading.Lock()
        self._image: Image | None = None
        self._number = 0
        self._data, self._encoded = b"", 0
        self.closed = False

    def put(self, image: Image) -> None:
        """Offer a frame; it must not be changed afterwards."""
        with self._changed:
            self._image, self._number = image, self._number + 1
            self._changed.notify_all()

    def wait(self, seen: int, timeout: float) -> tuple[bytes, int]:
        """Return a frame newer than number `seen`, or the same one after `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or self._number > seen, timeout)
        with self._encoding:
            with self._changed:
                image, number = self._image, self._number
            if image is not None and number > self._encoded:
                cv2 = load_cv2()
                done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
                self._data, self._encoded = data.tobytes() if done else self._data, number
            return self._data, self._encoded

    def close(self) -> None:
        """Wake all viewers for the last time."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()


class WebSink:
    """Serve frames on a port; viewers that are too slow miss frames, the run never waits.

    Args:
        host: Address to listen on.
        port: Port; 0 picks a free one.
        token: What viewers must give; None: a random one beyond loopback addresses.

    Raises:
        SourceError: the address cannot be used.
    """

    def __init__(self, host: str, port: int, token: str | None = None) -> None:
        self._newest = NewestJpeg()
        local = is_loopback(host)
        self.token = token or ("" if local else secrets.token_urlsafe(16))
        try:
            self._server = _Server(host, port, self._newest, self.token)
        except (OSError, UnicodeError) as error:
            raise SourceError(
                f"Cannot serve on {host}:{port}: {getattr(error, 'strerror', None) or error}.",
                "Choose another port: --sink web:8090",
            ) from None
        self.host, self.port = str(self._server.server_address[0]), self._server.server_port
        if local:
            shown = "localhost"
        elif self.host in ("0.0.0.0", "::"):
            shown = socket.gethostname()
        else:
            shown = f"[{host}]" if ":" in host else host
        query = f"?token={urllib.parse.quote(self.token, safe='')}" if self.token else ""
        self.name = f"http://{shown}:{self.port}/{query}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def write(self, frame: Frame, drawn: Image) -> None:
        """Show the frame to whoever is watching."""
        self._newest.put(drawn)

    def close(self) -> None:
        """End the page's stream and free the port."""
        if not self._newest.closed:
            self._newest.close()
            self._server.shutdown()
            self._server.server_close()


def open_web(text: str) -> WebSink:
    """Open ``PORT`` (this machine only) or ``ADDRESS:PORT``, perhaps with ``?token=TEXT``.

    Raises:
        SourceError: no port, or one that cannot be used.
    """
    where, _, query = text.partition("?")
    host, _, port = where.rpartition(":")
    given = urllib.parse.parse_qs(query).get("token", [])
    if (
        not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535)
        or bool(query) != (len(given) == 1)
    ):
        raise SourceError(
            f"Got web:{text}; expected a port.",
            "Use --sink web:8080, web:0.0.0.0:8080 or web:0.0.0.0:8080?token=TEXT.",
        )
    host = host.removeprefix("[").removesuffix("]")
    return WebSink(host or "127.0.0.1", int(port), given[0] if given else None)


def is_loopback(host: str) -> bool:
    """Tell whether an address is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_local_name(host: str) -> bool:
    """Tell whether a ``Host`` header names this machine and nothing that others can define."""
    return "@" not in host and is_loopback(_split(f"//{host}").hostname or "")


def _split(address: str) -> urllib.parse.SplitResult:
    try:
        return urllib.parse.urlsplit(address)
    except ValueError:  # a bracket too many
        return urllib.parse.SplitResult("", "", "", "", "")


class _Server(ThreadingHTTPServer):
    """Threads as before, but only so many, and silent about viewers that have gone."""

    daemon_threads = True

    def __init__(self, host: str, port: int, newest: NewestJpeg, token: str) -> None:
        self.newest, self.token, self.local = newest, token, is_loopback(host)
        self.stream = "/stream" + (f"?token={urllib.parse.quote(token, safe='')}" if token else "")
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._free = threading.BoundedSemaphore(WEB_CONNECTIONS.most)
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no more threads
            self._free.release()
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            _LOG.exception("A request to the web page failed.")


def open_web_sink(uri: str, info: SourceInfo) -> WebSink:
    """Open ``web:PORT`` or ``web:ADDRESS:PORT``, see `open_web`."""
    return open_web(uri.partition(":")[2])


def _part_head(length: int) -> bytes:
    return (
        f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = REQUEST_S  # of each picture that is sent
    server_version, sys_version = "prunus", ""

    def setup(self) -> None:
        super().setup()
        wire = Wire(REQUEST_S)  # of the whole request, however slowly it comes
        wire.attach(self.connection)
        self.rfile = io.BufferedReader(wire)

    def do_GET(self) -> None:
        self.connection.settimeout(REQUEST_S)
        address = _split(self.path)
        if refusal := self._refusal(address.query):
            self.send_error(403, refusal)
        elif address.path == "/":
            page = _PAGE.format(title="prunus", stream=html.escape(self.server.stream))
            self._answer("text/html; charset=utf-8", page.encode())
        elif address.path == "/frame.jpg":
            if data := self.server.newest.wait(0, _WAIT_S)[0]:
                self._answer("image/jpeg", data)
            else:
                self.send_error(503, "No frame yet")
        elif address.path == "/stream":
            self._stream()
        else:
            self.send_error(404)

    def _refusal(self, query: str) -> str:
        """Return why this request is not answered, empty when it is."""
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or (self.server.local and not is_local_name(hosts[0])):
            return "Another host was asked for"
        origin = self.headers.get("Origin")
        if origin is not None and _split(origin).netloc != hosts[0]:
            return "Another site asks"
        given = urllib.parse.parse_qs(query).get("token", [""])[-1]
        token = self.server.token
        if token and not hmac.compare_digest(given.encode(), token.encode()):
            return "The token is missing or wrong"
        return ""

    def _answer(self, kind: str, body: bytes) -> None:
        self._head(kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _head(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        for name, value in _HEADERS.items():
            self.send_header(name, value)

    def _stream(self) -> None:
        self._head(f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
        self.end_headers()
        seen = 0
        while not self.server.newest.closed:
            data, seen = self.server.newest.wait(seen, _WAIT_S)
            if data:
                self.wfile.write(_part_head(len(data)) + data + b"\r\n")
        self.wfile.write(f"--{_BOUNDARY}--\r\n".encode())

    def log_message(self, format: str, *args: object) -> None:
        """Keep the terminal for the progress bar."""
