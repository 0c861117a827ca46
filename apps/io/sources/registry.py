"""Where frames come from: one URI grammar over pictures, folders, videos, cameras and streams.

===========================  =========================================================
``0``, ``/dev/video0``       camera
``picture.jpg``, ``folder/``  one picture, or all pictures of a folder in name order
``street.mp4``               video file
``rtsp://host/path``         network camera
``http://host/stream``       MJPEG stream, or a video or picture by its address
``synthetic:640x480@25*100`` camera moving over the bundled portrait: size, rate, frames
===========================  =========================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import SourceError, nearest

Image = npt.NDArray[np.uint8]
PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
_SCHEMES = ("rtsp", "rtsps", "http", "https", "synthetic")


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What is known about a source before its first frame is processed.

    Attributes:
        kind: ``picture``, ``folder``, ``video``, ``camera``, ``stream`` or ``synthetic``.
        width: Width of the first frame in pixels; later pictures of a folder may differ.
        height: Height of the first frame in pixels.
        fps: Frames per second, 0 when the source has no time of its own (pictures).
        frames: How many frames to expect, 0 when unknown. An estimate: containers may lie.
        live: True when frames arrive in their own time, so that late ones are dropped.
    """

    kind: str
    width: int
    height: int
    fps: float
    frames: int
    live: bool


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame.

    Attributes:
        index: Counts from 0.
        image: uint8 (height, width, 3) BGR.
        name: File name of a picture, else empty.
        captured_ns: `time.perf_counter_ns` when the frame was complete.
        picture_id: Of a picture in a folder; it holds whatever is skipped before it.
    """

    index: int
    image: Image
    name: str
    captured_ns: int
    picture_id: int | None = None

    @property
    def image_id(self) -> int:
        """The id in COCO results: of the picture, else the frame's index."""
        return self.index if self.picture_id is None else self.picture_id


class Source(Protocol):
    """An iterator over frames that knows what to expect and can be closed."""

    info: SourceInfo

    @property
    def warnings(self) -> list[str]:
        """Return what went wrong so far without ending the source."""

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the source ends."""

    def close(self) -> None:
        """Release the device or file; safe to call twice and from another thread."""


def open_source(uri: str, *, reconnect: bool = True) -> Source:
    """Open the source that a URI names (see the table in the module docstring).

    Args:
        uri: Source; a file or folder whose name is a number is one unless such a camera exists.
        reconnect: Open a network stream again when it breaks off.

    Raises:
        SourceError: nothing there, no such kind, or not readable.
        MissingDependencyError: OpenCV is not installed.

    Example:
        >>> with contextlib.closing(open_source("street.mp4")) as source:
        ...     first = next(iter(source))
    """
    scheme, separator, rest = uri.partition(":")
    if _is_camera(uri):
        from prunus.apps.io.sources.video import open_camera

        return open_camera(uri)
    if separator and scheme == "synthetic":
        from prunus.apps.io.sources.synthetic import open_synthetic

        return open_synthetic(rest)
    if scheme in ("http", "https") and rest.startswith("//"):
        from prunus.apps.io.sources.http import open_http

        return _live(open_http, uri, reconnect)
    if "://" in uri:
        if scheme not in _SCHEMES:
            raise SourceError(
                f"Unknown kind of source '{scheme}://'{nearest(scheme, list(_SCHEMES))}.",
                "Give a camera number, a file, a folder, rtsp://, http:// or synthetic:",
            )
        from prunus.apps.io.sources.video import open_stream

        return _live(open_stream, uri, reconnect)
    return _open_path(Path(uri), uri)


def _is_camera(uri: str) -> bool:
    """Tell a camera's number or device from a file or folder of such a name."""
    if re.fullmatch("/dev/video[0-9]{1,3}", uri):
        return True
    if not re.fullmatch("[0-9]{1,5}", uri):  # superscripts and other scripts have digits, too
        return False
    return Path(f"/dev/video{uri}").exists() or not Path(uri).exists()


def _live(opener: Callable[[str], Source], uri: str, reconnect: bool) -> Source:
    """Open an address; what turns out to be live comes back after an interruption."""
    source = opener(uri)
    if not reconnect or not source.info.live:
        return source
    from prunus.apps.io.sources.reconnect import ReconnectingSource
    from prunus.apps.io.sources.video import without_password

    return ReconnectingSource(source, lambda: opener(uri), without_password(uri))


def _open_path(path: Path, uri: str) -> Source:
    try:
        folder, there, special = path.is_dir(), path.exists(), path.exists() and not path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        folder = there = special = False
    if folder:
        from prunus.apps.io.sources.pictures import open_folder

        return open_folder(path)
    if not there:
        raise SourceError(
            f"Source not found: {uri}.",
            "Give a camera number, a file, a folder, rtsp://, http:// or synthetic:",
        )
    if special:  # reading a pipe or a device may never end
        raise SourceError(
            f"{uri} is neither a file nor a folder.", "A camera is given by its number: --source 0"
        )
    if path.suffix.lower() in PICTURES:
        from prunus.apps.io.sources.pictures import open_picture

        return open_picture(path)
    from prunus.apps.io.sources.video import open_video

    return open_video(path)
