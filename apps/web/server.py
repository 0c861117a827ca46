"""A page for browsers, from the standard library's HTTP server: frames, data, and controls.

A `WebServer` has the address, and shows one run at a time; a `Showing` is the sink of that run. A
`WebSink` is both, for one run.

==============  ====================================================================================
``/``           the page; its style and script lie beside it
``/live``       for the page: a line of JSON, then so many ``bytes`` of JPEG, again and again;
                with ``drawn=1`` the pictures have everything drawn on them
``/control``    POST of a JSON object: settings of the run by name
``/offer``      POST of a JSON object: a browser offers its camera (`prunus serve live` alone)
``/stream``     MJPEG, for programs and for browsers without script
``/frame.jpg``  the newest frame
==============  ====================================================================================

Who may look: on a loopback address every program of this machine, but no website that a browser of
this machine has open (a website can give its own name the address 127.0.0.1 and then read answers,
so the name that was asked for is compared); on other addresses whoever has the token.
"""

from __future__ import annotations

import hmac
import html
import io
import ipaddress
import json
import logging
import secrets
import socket
import ssl
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from prunus.apps.io.frames import SourceInfo
from prunus.apps.live.controls import Controls
from prunus.apps.web.newest import Shot
from prunus.apps.web.showing import Offers, Showing
from prunus.runtime.errors import PrunusError, SourceError, UsageError
from prunus.runtime.http_client import Wire, content_length
from prunus.runtime.json_text import json_text
from prunus.runtime.limits import (
    CONTROL_BYTES,
    OFFER_BYTES,
    REQUEST_S,
    WEB_CONNECTIONS,
    WEB_VIEWERS,
    Limit,
)

_BOUNDARY = "prunusframe"
_WAIT_S = 5.0  # for a new frame; the page takes three times as long without a word for a lost line
_REFUSAL_S = 0.5  # for the request of somebody who is told that there is no place
_FAREWELL_S = 1.0  # for viewers to be told that the source has ended
_AHEAD_BYTES = 256 << 10  # on the way to one viewer: more would be frames of long ago
_LOG = logging.getLogger(__name__)
_PAGE = Path(__file__).with_name("page")
_FILES = {
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/camera.js": ("camera.js", "text/javascript; charset=utf-8"),
}
_MESSAGES = {"/control": CONTROL_BYTES, "/offer": OFFER_BYTES}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class WebServer:
    """A page on a port.

    Args:
        host: Address to listen on.
        port: Port; 0 picks a free one.
        token: What viewers must give; None: a random one beyond loopback addresses.
        tls: Certificate and key, None for plain HTTP.
        offers: Takes cameras of browsers, None where none are wanted.
        hint: How another port is asked for.

    Raises:
        SourceError: the address cannot be used.
    """

    def __init__(
        self,
        host: str,
        port: int,
        token: str | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        offers: Offers | None = None,
        hint: str = "--sink web:8090",
    ) -> None:
        local = is_loopback(host)
        self.token = token or ("" if local else secrets.token_urlsafe(16))
        try:
            self._server = _Server(host, port, self.token, tls, offers)
        except (OSError, UnicodeError) as error:
            raise SourceError(
                f"Cannot serve on {host}:{port}: {getattr(error, 'strerror', None) or error}.",
                f"Choose another port: {hint}",
            ) from None
        self.host, self.port = str(self._server.server_address[0]), self._server.server_port
        if local:
            shown = "localhost"
        elif self.host in ("0.0.0.0", "::"):
            shown = socket.gethostname()
        else:
            shown = f"[{host}]" if ":" in host else host
        scheme = "http" if tls is None else "https"
        self.name = f"{scheme}://{shown}:{self.port}/{self._server.query}"
        Showing(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    @property
    def viewers(self) -> int:
        """How many look."""
        return self._server.viewers

    def show(self, showing: Showing) -> None:
        """Show another run from now on; that of before is over."""
        before, self._server.showing = self._server.showing, showing
        if before is not None:
            before.newest.close()

    def close(self) -> None:
        """Give viewers a moment to learn that this is the end, and free the port; once."""
        self._server.showing.newest.close()
        self._server.wait_for_farewells()
        self._server.shutdown()
        self._server.server_close()


class WebSink(Showing):
    """A server for one run; see `WebServer`, also for what it raises."""

    def __init__(self, host: str, port: int, token: str | None = None) -> None:
        server = WebServer(host, port, token)
        self.host, self.port, self.token = server.host, server.port, server.token
        super().__init__(server)
        self._own = server

    def close(self) -> None:
        """Tell viewers that this is the end, and free the port; safe to call twice."""
        if not self.newest.closed:
            self._own.close()


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
    request_queue_size = 128  # who is refused is told so; the queue must hold them until then

    showing: Any = None  # the `Showing` of now

    def __init__(
        self, host: str, port: int, token: str, tls: ssl.SSLContext | None, offers: Offers | None
    ) -> None:
        self.token, self.local, self.offers = token, is_loopback(host), offers
        self.query = f"?token={urllib.parse.quote(token, safe='')}" if token else ""
        self.viewers = 0
        self._tls = tls
        self._fewer = threading.Condition()
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._free = threading.BoundedSemaphore(WEB_CONNECTIONS.most)
        self._refusing = threading.BoundedSemaphore(WEB_CONNECTIONS.most)
        super().__init__((host, port), _Handler)

    def get_request(self) -> tuple[Any, Any]:
        """Take a connection; where it is encrypted, hands are shaken in its own thread."""
        request, address = super().get_request()
        if self._tls is not None:
            request = self._tls.wrap_socket(
                request, server_side=True, do_handshake_on_connect=False
            )
        return request, address

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, or refuse in one, or, where there are too many of both, hang up."""
        if self._free.acquire(blocking=False):
            slots, work = self._free, super().process_request_thread
        elif self._refusing.acquire(blocking=False):
            slots, work = self._refusing, self._refuse
        else:
            self.shutdown_request(request)
            return

        def run() -> None:
            try:
                work(request, client_address)
            finally:
                slots.release()

        try:
            threading.Thread(target=run, daemon=True).start()
        except RuntimeError:  # no more threads
            slots.release()
            self.shutdown_request(request)

    def _refuse(self, request: Any, client_address: Any) -> None:
        try:
            request.settimeout(_REFUSAL_S)
            # The request first, see `do_POST`.
            if request.recv(1 << 16):
                text = b"Too many connections; try again in a while.\n"
                request.sendall(
                    b"HTTP/1.0 503 Too many connections\r\nRetry-After: 5\r\nContent-Type: "
                    b"text/plain\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text)
                )
        except OSError:
            pass
        finally:
            self.shutdown_request(request)

    def enter(self) -> bool:
        """Count one more viewer, unless there are too many."""
        with self._fewer:
            if self.viewers >= WEB_VIEWERS.most:
                return False
            self.viewers += 1
            return True

    def leave(self) -> None:
        """Count one viewer less."""
        with self._fewer:
            self.viewers -= 1
            self._fewer.notify_all()

    def wait_for_farewells(self) -> None:
        """Give viewers a moment to take what says that this is the end."""
        with self._fewer:
            self._fewer.wait_for(lambda: self.viewers == 0, _FAREWELL_S)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log faults of ours; viewers that left are none."""
        if not isinstance(sys.exc_info()[1], OSError):
            _LOG.exception("A request to the web page failed.")


def open_web_sink(uri: str, info: SourceInfo) -> WebSink:
    """Open ``web:PORT`` or ``web:ADDRESS:PORT``, see `open_web`."""
    return open_web(uri.partition(":")[2])


def _part_head(length: int) -> bytes:
    return (
        f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def _told(shot: Shot, clean: bool) -> dict[str, Any]:
    """Return what a page gets to know about a frame that is on its way."""
    age_ms = (time.perf_counter_ns() - shot.captured_ns) / 1e6 if shot.captured_ns else None
    latency = {} if age_ms is None else {"latency_ms": round(age_ms, 1)}
    return {**shot.data, **latency, "drawn": not clean or shot.clean is None}


def _set(controls: Controls, changes: Mapping[str, Any]) -> dict[str, Any]:
    controls.set(changes)
    return controls.values()


def _json_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object; raises UsageError."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UsageError(
            f"Got {body[:40]!r}; expected a JSON object.", 'Example: {"paused": true}'
        )
    return found


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
        file = _FILES.get(address.path)
        # Style and script are the same for everybody, and the page cannot name them with a token.
        if refusal := self._refusal(address.query, secret=file is None):
            self.send_error(403, refusal)
        elif file is not None:
            self._answer(200, file[1], (_PAGE / file[0]).read_bytes())
        elif address.path == "/":
            self._answer(200, "text/html; charset=utf-8", self._page())
        elif address.path == "/frame.jpg":
            if data := self.server.showing.newest.wait(0, 0, _WAIT_S).jpeg:
                self._answer(200, "image/jpeg", data)
            else:
                self.send_error(503, "No frame yet")
        elif address.path in ("/live", "/stream"):
            self._watch(address)
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        self.connection.settimeout(REQUEST_S)
        address = _split(self.path)
        try:
            length = content_length(self.headers.get("Content-Length")) or 0
        except ValueError:
            length = 0
        # Bytes left unread would turn the end of the connection into a fault that hides the answer.
        body = self.rfile.read(min(length, 16 * CONTROL_BYTES.most))
        limit, offers = _MESSAGES.get(address.path), self.server.offers
        controls = self.server.showing.controls
        if refusal := self._refusal(address.query):
            self.send_error(403, refusal)
        elif limit is None or (limit is OFFER_BYTES and offers is None):
            self.send_error(404)
        elif limit is OFFER_BYTES and offers is not None:
            self._take(limit, length, body, offers.take)
        elif controls is None:
            self.send_error(503, "No run to control yet")
        else:
            self._take(limit, length, body, partial(_set, controls))

    def _take(
        self,
        limit: Limit,
        length: int,
        body: bytes,
        act: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    ) -> None:
        try:
            limit.check(length, "The message")
            answer, status = act(_json_object(body)), 200
        except PrunusError as error:
            status = 400 if isinstance(error, UsageError) else 503
            answer = {"error": error.message, "hint": error.hint}
        self._answer(status, "application/json", json_text(answer).encode())

    def _page(self) -> bytes:
        head, offers = self.server.showing.head, self.server.offers
        text, camera = (_PAGE / "index.html").read_text("utf-8"), ""
        if offers is not None:
            camera = (_PAGE / "camera.html").read_text("utf-8") + "    "
            camera = camera.replace("{sound}", "yes" if offers.sound else "no")
        text = text.replace("{camera}", camera)
        title = " - ".join(str(head[key]) for key in ("model", "source") if key in head)
        text = text.replace("{title}", html.escape(title or "prunus"))
        return text.replace("{stream}", html.escape(f"/stream{self.server.query}")).encode()

    def _refusal(self, query: str, *, secret: bool = True) -> str:
        """Return why this request is not answered, empty when it is."""
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or (self.server.local and not is_local_name(hosts[0])):
            return "Another host was asked for"
        origin = self.headers.get("Origin")
        if origin is not None and _split(origin).netloc != hosts[0]:
            return "Another site asks"
        given = urllib.parse.parse_qs(query).get("token", [""])[-1]
        token = self.server.token
        if secret and token and not hmac.compare_digest(given.encode(), token.encode()):
            return "The token is missing or wrong"
        return ""

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self._head(kind, status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _head(self, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in _HEADERS.items():
            self.send_header(name, value)

    def _watch(self, address: urllib.parse.SplitResult) -> None:
        if not self.server.enter():
            self.send_error(503, "Too many viewers")
            return
        try:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _AHEAD_BYTES)
            if address.path == "/stream":
                self._stream()
            else:
                self._live(clean="drawn=1" not in address.query.split("&"))
        finally:
            self.server.leave()

    def _stream(self) -> None:
        self._head(f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
        self.end_headers()
        tick, newest = -1, self.server.showing.newest
        while not newest.closed:
            news = newest.wait(tick, 0, _WAIT_S)
            tick = news.tick
            if news.jpeg:
                self.wfile.write(_part_head(len(news.jpeg)) + news.jpeg + b"\r\n")
        self.wfile.write(f"--{_BOUNDARY}--\r\n".encode())

    def _live(self, *, clean: bool) -> None:
        self._head("application/octet-stream")
        self.end_headers()
        tick, seen, introduced, closed = -1, 0, False, False
        showing = self.server.showing
        while not closed:
            news = showing.newest.wait(tick, seen, _WAIT_S, clean=clean)
            tick, closed = news.tick, news.closed
            controls = showing.controls
            if closed and controls is None and showing is not self.server.showing:
                # What never began is no run that has ended: on to the one that begins.
                showing, tick, closed = self.server.showing, -1, False
                continue
            line: dict[str, Any] = {"bytes": len(news.jpeg), "ended": closed}
            if controls is not None:
                line["values"] = controls.values()
                if not introduced:
                    line["head"] = {**showing.head, "controls": controls.describe()}
                    introduced = True
            if news.shot is not None and news.jpeg:
                line |= _told(news.shot, clean)
                seen = news.shot.number
            self.wfile.write(json_text(line).encode() + b"\n" + news.jpeg)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the terminal for the progress bar."""
