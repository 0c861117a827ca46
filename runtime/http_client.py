"""HTTP that ends: deadlines for all of an answer, no way back from https, no password passed on.

The standard library's time-out starts anew with every byte, so a server that sends one byte a
second holds a reader for ever. Here a `Wire` stands between the socket and the reader and counts
the time of whatever is read as a whole.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import http.client
import io
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from prunus.runtime.errors import UsageError
from prunus.runtime.limits import ANSWER_S

# What a server, a proxy or the network can make the standard library raise.
NETWORK_ERRORS = (OSError, ValueError, http.client.HTTPException)


class Wire(io.RawIOBase):
    """A socket's incoming bytes, and until when they may be waited for.

    Args:
        seconds: Time for the first thing that is read.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._sock: socket.socket | None = None
        self.allow(seconds)

    def allow(self, seconds: float) -> None:
        """Give whatever is read from now on so many seconds in all."""
        self._seconds, self._until = seconds, time.monotonic() + seconds

    def renew(self) -> None:
        """Give whatever is read from now on the same time anew."""
        self.allow(self._seconds)

    def attach(self, sock: socket.socket) -> None:
        """Read from this socket from now on."""
        self._sock = sock

    def readable(self) -> bool:
        """Tell the buffered reader above that it may read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with what has arrived, at least one byte; 0 at the end."""
        left = self._until - time.monotonic()
        if self._sock is None or left <= 0:
            raise TimeoutError(f"it was not complete after {self._seconds:g} s")
        self._sock.settimeout(left)
        try:
            return self._sock.recv_into(buffer)
        except TimeoutError:
            raise TimeoutError(f"it was not complete after {self._seconds:g} s") from None

    def cut(self) -> None:
        """End the connection; a reader in another thread wakes up."""
        if self._sock is not None:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket."""
        super().close()
        if self._sock is not None:
            self._sock.close()


class _TimedSocket:
    """What the standard library's connection needs of a socket, with reads through a wire."""

    def __init__(self, sock: socket.socket, wire: Wire) -> None:
        self._sock, self._wire = sock, wire
        wire.attach(sock)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self._wire)

    def sendall(self, data: Any) -> None:
        self._sock.sendall(data)
        self._wire.renew()  # a long body is no reason to give its answer less time

    def close(self) -> None:
        """Do nothing: the answer outlives its connection, and closes the wire."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, *args: Any, wire: Wire, **options: Any) -> None:
        super().__init__(*args, **options)
        self._wire = wire

    def connect(self) -> None:
        super().connect()
        self.sock: Any = _TimedSocket(self.sock, self._wire)


class _SecureConnection(http.client.HTTPSConnection):
    def __init__(self, *args: Any, wire: Wire, **options: Any) -> None:
        super().__init__(*args, **options)
        self._wire = wire

    def connect(self) -> None:
        super().connect()
        self.sock: Any = _TimedSocket(self.sock, self._wire)


class _Http(urllib.request.AbstractHTTPHandler):
    """Makes connections whose reads pass through wires; only the newest answer is kept."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.wire = Wire(seconds)
        self._seconds = seconds

    def _open(self, connection: Any, request: urllib.request.Request) -> Any:
        self.wire = Wire(self._seconds)
        return self.do_open(functools.partial(connection, wire=self.wire), request)

    def http_open(self, request: urllib.request.Request) -> Any:
        return self._open(_Connection, request)

    def https_open(self, request: urllib.request.Request) -> Any:
        return self._open(_SecureConnection, request)

    http_request = urllib.request.AbstractHTTPHandler.do_request_
    https_request = urllib.request.AbstractHTTPHandler.do_request_


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to other addresses, never to an unprotected one, and takes no password along."""

    def redirect_request(  # noqa: PLR0917 - the library's signature
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        old, new = urllib.parse.urlsplit(req.full_url), urllib.parse.urlsplit(newurl)
        if new.scheme not in ("http", "https") or (old.scheme, new.scheme) == ("https", "http"):
            raise UsageError(
                f"The server at {old.hostname} leads from {old.scheme} to {new.scheme}.",
                "Give the final address, if you trust it.",
            )
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None and (old.scheme, old.netloc) != (new.scheme, new.netloc):
            following.remove_header("Authorization")
        return following

    def http_error_302(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any
    ) -> Any:
        fp.close()  # its body would be read to the end, whatever its length
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


@dataclass(frozen=True, slots=True)
class Answer:
    """An opened answer.

    Attributes:
        body: ``http.client.HTTPResponse``: headers, status and the body.
        wire: Says how long the next read may take; give it time before each.
    """

    body: Any
    wire: Wire

    @property
    def length(self) -> int | None:
        """Bytes of the body as the server declares them, None when it does not."""
        return content_length(self.body.headers.get("Content-Length"))


def content_length(text: str | None) -> int | None:
    """Return a declared length, None for one that is missing.

    Raises:
        ValueError: it is not a number, or below zero.
    """
    if text is None:
        return None
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 24):
        raise ValueError(f"it declares the length {text[:24]!r}")
    return int(text)


def open_url(
    url: str,
    headers: Mapping[str, str] | None = None,
    seconds: float = ANSWER_S,
    *,
    method: str = "GET",
    body: bytes | BinaryIO | None = None,
) -> Answer:
    """Ask for an address; ``user:password@`` becomes a header, as in browsers.

    Args:
        url: ``http://`` or ``https://``.
        headers: Sent along; with a file as the body they say its Content-Length.
        seconds: For the connection, for each block that is sent, and again for the header of the
            answer, which begins to count when the connection stands.
        method: What is asked.
        body: What is sent.

    Raises:
        UsageError: the server leads away from https, or to something that is not HTTP.
        OSError, ValueError, http.client.HTTPException: see `NETWORK_ERRORS`.
    """
    web = _Http(seconds)
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
        web,
    ):
        opener.add_handler(handler)
    request = _request(url, dict(headers or {}), method, body)
    return Answer(opener.open(request, timeout=seconds), web.wire)


def _request(
    url: str, headers: dict[str, str], method: str, body: bytes | BinaryIO | None
) -> urllib.request.Request:
    parts = urllib.parse.urlsplit(url)
    if parts.username is not None:
        user, password = (urllib.parse.unquote(p or "") for p in (parts.username, parts.password))
        secret = base64.b64encode(f"{user}:{password}".encode("utf-8", "replace")).decode()
        headers["Authorization"] = f"Basic {secret}"
        url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return urllib.request.Request(url, data=body, headers=headers, method=method)
