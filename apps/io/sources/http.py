"""Pictures over HTTP: MJPEG (multipart/x-mixed-replace, RFC 2046), or a file by its address.

A server may be broken or hostile: each picture has to arrive within a time in all, and within a
size. A video or a picture is downloaded first and then is the file that it is, with every frame.
"""

from __future__ import annotations

import mimetypes
import tempfile
import threading
import time
import urllib.error
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from prunus.apps.io.frames import Frame, Image, Source, SourceInfo
from prunus.apps.io.rows import without_password
from prunus.apps.io.sources.stream import StreamSource
from prunus.apps.io.sources.video import open_video
from prunus.runtime.card.artifact import write_error
from prunus.runtime.errors import SourceError, UsageError
from prunus.runtime.http_client import NETWORK_ERRORS, Answer, content_length, open_url
from prunus.runtime.limits import (
    ANSWER_S,
    BLOCK_S,
    DOWNLOAD_BYTES,
    PART_HEADER_BYTES,
    PICTURE_BYTES,
    PICTURE_S,
)
from prunus.runtime.pictures.files import PICTURES
from prunus.runtime.pictures.opencv import load_cv2, quiet_stderr

_ASSUMED_FPS = 25.0  # MJPEG does not tell its rate
_BAD_IN_A_ROW = 10  # damaged pictures before a stream is given up
_LINE = 64 << 10
_BLOCK = 1 << 20
_VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
_VIDEO_KINDS = ("application/octet-stream", "application/vnd.apple.mpegurl")


class _Body(Protocol):
    def readline(self, limit: int = -1, /) -> bytes: ...
    def read(self, size: int = -1, /) -> bytes: ...


class Parts:
    """The pictures of a multipart body, one after the other.

    Args:
        body: At its start.
        boundary: As the header gives it; empty: the first line that begins with two dashes.
    """

    def __init__(self, body: _Body, boundary: bytes) -> None:
        self._body = body
        # A delimiter is two dashes and the boundary. Many cameras count the dashes in.
        self._marks = {b"--" + boundary, boundary} if boundary[:2] == b"--" else {b"--" + boundary}
        self._known = bool(boundary)
        self._ahead = b""  # a delimiter that was read while looking for the end of a part

    def next(self) -> bytes | None:
        """Return the next part's body, None behind the closing delimiter.

        Raises:
            EOFError: the body ends without a closing delimiter.
            ValueError: a line, a header or a picture is longer than permitted.
        """
        if not self._skip_to_part():
            return None
        length = self._headers()
        if length is None:
            return self._until_delimiter(b"")
        data = self._body.read(length)
        if len(data) < length:
            raise EOFError("the connection ended inside a picture")
        if data[:2] == b"\xff\xd8" and b"\xff\xd9" not in data[-64:]:
            return self._until_delimiter(data)  # the server counts too few bytes
        return data

    def _line(self) -> bytes:
        line = self._body.readline(_LINE)
        if not line:
            raise EOFError("the connection ended")
        return line

    def _is_delimiter(self, line: bytes) -> bool:
        mark = line.strip()
        if not self._known and mark[:2] == b"--" and len(mark) > 2:
            self._marks, self._known = {mark}, True
        return mark in self._marks or (mark[-2:] == b"--" and mark[:-2] in self._marks)

    def _skip_to_part(self) -> bool:
        """Read up to the next delimiter; False when it is the closing one."""
        line, skipped, begins = self._ahead, 0, True
        self._ahead = b""
        while not (line and begins and self._is_delimiter(line)):
            begins = not line or line.endswith(b"\n")
            skipped += len(line)
            PICTURE_BYTES.check(skipped, "between two pictures", SourceError)
            line = self._line()
        return line.strip() in self._marks

    def _headers(self) -> int | None:
        """Read a part's header; returns the length of its body, None when it does not say."""
        length, size = None, 0
        while (line := self._line()).strip():
            size += len(line)
            PART_HEADER_BYTES.check(size, "a part of the stream", SourceError)
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-length":
                length = content_length(value.decode("latin-1"))
        PICTURE_BYTES.check(length or 0, "a part of the stream", SourceError)
        return length or None

    def _until_delimiter(self, start: bytes) -> bytes:
        data, begins = bytearray(start), True
        while True:
            line = self._line()
            if begins and self._is_delimiter(line):
                self._ahead = line
                return bytes(data.removesuffix(b"\n").removesuffix(b"\r"))
            begins = line.endswith(b"\n")
            data += line
            PICTURE_BYTES.check(len(data), "a part of the stream", SourceError)


class MjpegSource:
    """Frames of an opened multipart answer.

    Args:
        answer: At the start of its body.
        boundary: As the answer's header gives it.
        name: Address for messages.

    Raises:
        SourceError: no picture arrives.
    """

    def __init__(self, answer: Answer, boundary: bytes, name: str) -> None:
        self.warnings: list[str] = []
        self._answer, self._name = answer, name
        self._parts = Parts(answer.body, boundary)
        self._reading = threading.Lock()  # an answer that is closed while it is read breaks
        self._closed = False
        self._begun = False
        self._damaged = 0
        try:
            first = self._next()
        except SourceError:
            self.close()
            raise
        if first is None:
            self.close()
            raise SourceError(
                f"{name} ended before its first picture.", "Is the camera switched on?"
            )
        self._first: Image | None = first
        height, width = first.shape[:2]
        self.info = SourceInfo("stream", width, height, _ASSUMED_FPS, 0, live=True)

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the server closes the stream; one that breaks off is an error."""
        image, index = self._first, 0
        self._first = None
        while image is not None:
            yield Frame(index, image, "", time.perf_counter_ns())
            index += 1
            image = self._next()

    def _next(self) -> Image | None:
        cv2 = load_cv2()
        for _ in range(_BAD_IN_A_ROW):
            data = self._part()
            if data is None:
                return None
            image = None
            if data:
                try:
                    with quiet_stderr():
                        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
                except cv2.error:  # more pixels than permitted
                    image = None
            if image is not None:
                picture: Image = image
                self._begun = True
                return picture
            self._damaged += 1
            self.warnings[:] = [f"{self._damaged} damaged pictures of {self._name} were skipped"]
        raise SourceError(
            f"{self._name} sent {_BAD_IN_A_ROW} damaged pictures in a row.",
            "Expected a stream of JPEGs.",
        )

    def _part(self) -> bytes | None:
        self._answer.wire.allow(PICTURE_S)
        try:
            with self._reading:
                return None if self._closed else self._parts.next()
        except (*NETWORK_ERRORS, EOFError, SourceError) as error:
            if self._closed or (isinstance(error, EOFError) and not self._begun):
                return None
            reason = error.message if isinstance(error, SourceError) else error
            raise SourceError(
                f"{self._name} stopped: {str(reason).rstrip('.') or type(error).__name__}.",
                "Check the camera and the network, and start again.",
            ) from None

    def close(self) -> None:
        """Close the connection; a thread that waits for a picture wakes up."""
        self._closed = True
        self._answer.wire.cut()
        with self._reading:
            self._answer.body.close()


class DownloadedSource:
    """A file that was downloaded, and is removed when it is closed."""

    def __init__(self, source: Source[Frame], folder: tempfile.TemporaryDirectory[str]) -> None:
        self._source, self._folder = source, folder
        self.info = source.info

    @property
    def warnings(self) -> list[str]:
        """Return what went wrong without ending the source."""
        return self._source.warnings

    def __iter__(self) -> Iterator[Frame]:
        """Yield the file's frames."""
        return iter(self._source)

    def close(self) -> None:
        """Close and remove the file."""
        self._source.close()
        self._folder.cleanup()


def open_http(uri: str) -> Source[Frame]:
    """Open an MJPEG stream, or download the video or the picture at that address.

    Raises:
        SourceError: nothing answers, the server refuses, or it sends no pictures.
    """
    shown = without_password(uri)
    answer = _request(uri, shown)
    kind = answer.body.headers.get_content_type()
    if kind == "multipart/x-mixed-replace":
        boundary = answer.body.headers.get_boundary() or ""
        return MjpegSource(answer, boundary.encode("latin-1", "replace"), shown)
    try:
        if opener := _file_opener(answer, kind):
            return _downloaded(answer, shown, *opener)
    finally:
        answer.body.close()
    if kind.startswith("video/") or kind in _VIDEO_KINDS:
        return StreamSource(uri)
    raise SourceError(
        f"{shown} sends {kind}; expected an MJPEG stream, a video or a picture.",
        "Give the address of the stream itself, not of the page that shows it.",
    )


def _file_opener(answer: Answer, kind: str) -> tuple[Callable[[Path], Source[Frame]], str] | None:
    """Return what opens an answer that is a file, and its ending; None for a stream."""
    from prunus.apps.io.sources.pictures import open_picture

    suffix = Path(urllib.parse.unquote(urllib.parse.urlsplit(answer.body.url).path)).suffix.lower()
    octets = kind == "application/octet-stream"
    if kind.startswith("image/") or (octets and suffix in PICTURES):
        return open_picture, suffix if suffix in PICTURES else mimetypes.guess_extension(kind) or ""
    # Without a length it may never end: a television stream, unless its name says otherwise.
    whole = answer.body.headers.get("Content-Length") is not None or suffix in _VIDEOS
    if whole and (octets or (kind.startswith("video/") and kind != "video/x-motion-jpeg")):
        return open_video, suffix if suffix in _VIDEOS else mimetypes.guess_extension(kind) or ""
    return None


def _downloaded(
    answer: Answer, shown: str, opener: Callable[[Path], Source[Frame]], suffix: str
) -> DownloadedSource:
    # The file keeps its name, by which results tell pictures apart.
    stem = Path(urllib.parse.urlsplit(answer.body.url).path).stem[:100] or "file"
    folder = tempfile.TemporaryDirectory(prefix="prunus-")
    path = Path(folder.name) / f"{stem}{suffix}"
    try:
        _store(answer, path, shown)
        return DownloadedSource(opener(path), folder)
    except (*NETWORK_ERRORS, SourceError) as error:
        folder.cleanup()
        reason = error.message if isinstance(error, SourceError) else str(error)
        raise SourceError(
            f"{shown} cannot be used: {reason.replace(str(path), 'the file').rstrip('.')}.",
            "Check the address, or download it yourself first.",
        ) from None
    except BaseException:
        folder.cleanup()
        raise


def _store(answer: Answer, path: Path, shown: str) -> None:
    total, done = answer.length, 0
    DOWNLOAD_BYTES.check(total or 0, shown, SourceError)
    with path.open("wb") as file:
        while block := _read_block(answer):
            done += len(block)
            DOWNLOAD_BYTES.check(done, shown, SourceError)
            try:
                file.write(block)
            except OSError as error:
                raise write_error(error, path) from None
    if total is not None and done < total:
        raise SourceError(f"the connection ended after {done} of {total} bytes")


def _read_block(answer: Answer) -> bytes:
    answer.wire.allow(BLOCK_S)
    return bytes(answer.body.read(_BLOCK))


def _request(uri: str, shown: str) -> Answer:
    try:
        return open_url(uri, seconds=ANSWER_S)
    except urllib.error.HTTPError as error:
        error.close()
        raise SourceError(
            f"{shown} answers {error.code} {error.reason}.", "Check the address and the user."
        ) from None
    except UsageError as error:
        raise SourceError(f"{shown}: {error.message}", error.hint) from None
    except NETWORK_ERRORS as error:
        reason = getattr(error, "reason", None) or error
        raise SourceError(
            f"No stream answers at {shown}: {str(reason) or type(error).__name__}.",
            "Check address, port and network.",
        ) from None
