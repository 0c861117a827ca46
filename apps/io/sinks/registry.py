"""Where drawn frames go: one URI grammar over videos, pictures, folders, windows and the web.

=====================  ===============================================================
``out.mp4``            video file (also .avi, .mkv, .mov)
``out.png``            picture; with several frames the last one
``folder/``            one picture per frame, named as in the source or by number
``window:``            a window on the desktop
``web:8080``           a page for browsers on this machine; ``web:0.0.0.0:8080``: with a token
``null:``              nowhere: measure, or write keypoints alone
=====================  ===============================================================
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Protocol

from prunus.apps.io.sources.registry import PICTURES, Frame, Image, SourceInfo
from prunus.runtime.errors import HostError, SourceError, nearest

VIDEOS = (".avi", ".mkv", ".mov", ".mp4")
_SCHEMES = ("null", "web", "window")
_RESERVE = 8 << 20  # bytes that must stay free: encoders do not report a full disk, so we look


class Sink(Protocol):
    """Takes drawn frames in order; `close` makes what was written complete."""

    name: str

    def write(self, frame: Frame, drawn: Image) -> None:
        """Take one frame: `drawn` is uint8 (height, width, 3) BGR."""

    def close(self) -> None:
        """Finish the output; safe to call twice, and after an error."""


class Stop(Exception):  # noqa: N818 - a request, not an error
    """The user closed the window: end the run as if the source had ended."""


def open_sink(uri: str, info: SourceInfo) -> Sink:
    """Open the sink that a URI names (see the table in the module docstring).

    Raises:
        SourceError: no such kind, the folder cannot be written, or the port is taken.
        HostError: the disk is full, or this OpenCV cannot open windows.

    Example:
        >>> with contextlib.closing(open_sink("out.mp4", source.info)) as sink:
        ...     sink.write(frame, frame.image)
    """
    scheme, separator, rest = uri.partition(":")
    if separator and scheme == "null":
        return NullSink()
    if separator and scheme == "web":
        from prunus.apps.web.server import open_web

        return open_web(rest)
    if separator and scheme == "window":
        from prunus.apps.io.sinks.window import WindowSink

        return WindowSink(rest or "prunus")
    if separator and len(scheme) > 1 and "/" not in scheme:  # one letter is a drive on Windows
        raise SourceError(
            f"Unknown kind of sink '{scheme}:'{nearest(scheme, list(_SCHEMES))}.",
            "Give a video, a picture, a folder, window:, web:8080 or null:",
        )
    return _open_path(uri, info)


def _open_path(uri: str, info: SourceInfo) -> Sink:
    path = Path(uri)
    suffix = path.suffix.lower()
    if path.is_dir() or uri.endswith("/") or not suffix:
        from prunus.apps.io.sinks.pictures import FolderSink

        return FolderSink(path)
    if suffix in PICTURES:
        from prunus.apps.io.sinks.pictures import PictureSink

        return PictureSink(path)
    if suffix in VIDEOS:
        from prunus.apps.io.sinks.video import VideoSink

        return VideoSink(path, info)
    raise SourceError(
        f"Cannot tell what to write to {uri}: unknown ending '{suffix}'.",
        f"Use one of {', '.join(VIDEOS + PICTURES)}, or a folder ending in '/'.",
    )


class NullSink:
    """Takes frames and forgets them."""

    name = "null:"

    def write(self, frame: Frame, drawn: Image) -> None:
        """Forget the frame."""

    def close(self) -> None:
        """Do nothing."""


def require_space(path: Path, needed: int = 0) -> None:
    """Refuse to go on when the disk of `path` is nearly full.

    Args:
        path: File or folder that is about to be written; its parent must exist.
        needed: Bytes about to be written, on top of a reserve of 8 MiB.

    Raises:
        HostError: less is free.
    """
    free = shutil.disk_usage(path if path.is_dir() else path.absolute().parent).free
    if free < needed + _RESERVE:
        raise HostError(
            f"No space left while writing {path}: {free / 2**20:.0f} MiB are free, "
            f"{(needed + _RESERVE) / 2**20:.0f} MiB are needed.",
            "Free some disk space, or choose another folder with -o.",
        )
