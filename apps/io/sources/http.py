"""Pictures over HTTP: MJPEG (multipart/x-mixed-replace, RFC 2046), or any video by its address."""

from __future__ import annotations

import base64
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from prunus.apps.common.opencv import load_cv2, quiet_stderr
from prunus.apps.io.sources.registry import Frame, Image, Source, SourceInfo
from prunus.apps.io.sources.video import open_stream, without_password
from prunus.runtime.errors import SourceError

_TIMEOUT = 5.0  # seconds without a byte
_LARGEST = 32 << 20  # bytes of one JPEG
_ASSUMED_FPS = 25.0  # MJPEG does not tell its rate
_BAD_IN_A_ROW = 10  # damaged pictures before a stream is given up


class _Reader(Protocol):
    def readline(self, limit: int = -1) -> bytes: ...
    def read(self, size: int = -1) -> bytes: ...
    def close(self) -> None: ...


class MjpegSource:
    """Frames of an opened multipart response.

    Args:
        response: The body, at its start.
        boundary: Line between two parts, without the leading dashes.
        name: Address for messages.

    Raises:
        SourceError: no picture arrives.
    """

    def __init__(self, response: _Reader, boundary: bytes, name: str) -> None:
        self.warnings: list[str] = []
        self._response, self._boundary, self._name = response, boundary, name
        self._closed = False
        self._damaged = 0
        self._ahead = b""  # a boundary line that was read while looking for the end of a part
        first = self._next()
        if first is None:
            raise SourceError(
                f"{name} ended before its first picture.", "Is the camera switched on?"
            )
        self._first: Image | None = first
        height, width = first.shape[:2]
        self.info = SourceInfo("stream", width, height, _ASSUMED_FPS, 0, live=True)

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the server ends the stream."""
        image, index = self._first, 0
        self._first = None
        while image is not None:
            yield Frame(index, image, "", time.perf_counter_ns())
            index += 1
            image = self._next()
        if self._damaged:
            self.warnings.append(f"{self._damaged} damaged pictures of {self._name} were skipped")

    def _next(self) -> Image | None:
        cv2 = load_cv2()
        for _ in range(_BAD_IN_A_ROW):
            data = self._part()
            if data is None:
                return None
            with quiet_stderr():
                image = (
                    cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
                )
            if image is not None:
                picture: Image = image
                return picture
            self._damaged += 1
        raise SourceError(
            f"{self._name} sent {_BAD_IN_A_ROW} damaged pictures in a row.",
            "Expected a stream of JPEGs.",
        )

    def _part(self) -> bytes | None:
        """Return the body of the next part, None at the end."""
        try:
            length = self._headers()
            if length is None:
                return None
            return self._exactly(length) if length else self._until_boundary()
        except (OSError, ValueError) as error:
            if self._closed:
                return None
            raise SourceError(
                f"{self._name} stopped: {error or type(error).__name__}.",
                "Check the network and start again.",
            ) from None

    def _headers(self) -> int | None:
        """Skip to the next part and return its length, 0 when it does not say, None at the end."""
        while True:
            line = self._ahead or self._response.readline(65536)
            self._ahead = b""
            if not line:
                return None
            if line.strip() == b"--" + self._boundary + b"--":
                return None
            if line.strip().startswith(b"--" + self._boundary):
                break
        length = 0
        while line := self._response.readline(65536).strip():
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-length":
                length = int(value)
        if length > _LARGEST:
            raise ValueError(f"a picture of {length} bytes")
        return length

    def _exactly(self, length: int) -> bytes | None:
        data = self._response.read(length)
        return data if len(data) == length else None

    def _until_boundary(self) -> bytes | None:
        """Return the body of a part that does not tell its length."""
        data, mark = bytearray(), b"--" + self._boundary
        while len(data) < _LARGEST:
            line = self._response.readline(65536)
            if not line:
                return None
            if line.startswith(mark):
                self._ahead = line
                return bytes(data.removesuffix(b"\n").removesuffix(b"\r"))
            data += line
        raise ValueError(f"a picture of more than {_LARGEST} bytes")

    def close(self) -> None:
        """Close the connection."""
        self._closed = True
        self._response.close()


def open_http(uri: str) -> Source:
    """Open an MJPEG stream, or hand a video at that address to OpenCV.

    Raises:
        SourceError: nothing answers, the server refuses, or it sends no pictures.
    """
    shown = without_password(uri)
    response = _request(uri, shown)
    kind = response.headers.get_content_type()
    if kind == "multipart/x-mixed-replace":
        boundary = (response.headers.get_param("boundary") or "").strip('"').removeprefix("--")
        return MjpegSource(response, boundary.encode(), shown)
    response.close()
    if kind.startswith("video/") or kind in (
        "application/octet-stream",
        "application/vnd.apple.mpegurl",
    ):
        return open_stream(uri)
    raise SourceError(
        f"{shown} sends {kind}; expected an MJPEG stream or a video.",
        "Give the address of the stream itself, not of the page that shows it.",
    )


def _with_authorisation(uri: str) -> urllib.request.Request:
    """Move ``user:password@`` from the address into a header, as browsers do."""
    parts = urllib.parse.urlsplit(uri)
    if parts.username is None:
        return urllib.request.Request(uri)
    plain = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    secret = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
    value = "Basic " + base64.b64encode(secret.encode()).decode()
    return urllib.request.Request(plain, headers={"Authorization": value})


def _request(uri: str, shown: str) -> Any:
    try:
        return urllib.request.urlopen(_with_authorisation(uri), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        raise SourceError(
            f"{shown} answers {error.code} {error.reason}.", "Check the address and the user."
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise SourceError(
            f"No stream answers at {shown}: {reason}.", "Check address, port and network."
        ) from None
