"""Videos, cameras and network streams through OpenCV."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prunus.apps.common.opencv import load_cv2
from prunus.apps.io.sources.registry import Frame, Image, SourceInfo
from prunus.runtime.errors import SourceError

_OPEN_MS = 5_000  # a network camera that does not answer by then is called absent
_READ_MS = 5_000
_ASSUMED_FPS = 25.0  # for sources that do not tell


class CaptureSource:
    """Frames of an opened OpenCV capture.

    Args:
        capture: ``cv2.VideoCapture`` that is open.
        kind: ``video``, ``camera`` or ``stream``.
        name: What the user called it, for messages.

    Raises:
        SourceError: it gives no first frame.
    """

    def __init__(self, capture: Any, kind: str, name: str) -> None:
        cv2 = load_cv2()
        self.warnings: list[str] = []
        self._capture, self._name = capture, name
        # Reading and releasing in two threads at once crashes inside OpenCV.
        self._lock = threading.Lock()
        self._closed = False
        self._first = self._read()
        if self._first is None:
            self.close()
            raise SourceError(
                f"{name} opens but gives no picture: it is damaged, empty or of an unknown codec.",
                "Play it with another program, or convert it to H.264 in an .mp4 file.",
            )
        live = kind != "video"
        fps = float(capture.get(cv2.CAP_PROP_FPS))
        frames = 0 if live else max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        height, width = self._first.shape[:2]
        self.info = SourceInfo(
            kind, width, height, fps if 0 < fps <= 1000 else _ASSUMED_FPS, frames, live
        )

    def _read(self) -> Image | None:
        with self._lock:
            if self._closed:
                return None
            done, image = self._capture.read()
        if not done or image is None:
            return None
        if image.ndim == 2:  # infrared cameras deliver grey
            image = load_cv2().cvtColor(image, load_cv2().COLOR_GRAY2BGR)
        picture: Image = image
        return picture

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames; a file that ends early leaves a warning, a stream that ends an error."""
        image, index = self._first, 0
        self._first = None
        while image is not None:
            yield Frame(index, image, "", time.perf_counter_ns())
            index += 1
            image = self._read()
        if self._closed:
            return
        if self.info.live:
            raise SourceError(
                f"{self._name} stopped delivering after {index} frames.",
                "Check the cable or the network and start again.",
            )
        # Containers round their count; only a clear gap means that the file is cut off.
        if index < self.info.frames - max(2, self.info.frames // 50):
            self.warnings.append(
                f"{self._name} ends after {index} of {self.info.frames} frames: "
                "it is cut off or damaged"
            )

    def close(self) -> None:
        """Release the device or file."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._capture.release()


def open_video(path: Path) -> CaptureSource:
    """Open a video file.

    Raises:
        SourceError: it cannot be read, or is not a video.
    """
    cv2 = load_cv2("Reading videos")
    try:
        with path.open("rb") as file:
            size = len(file.read(16))
    except OSError as error:
        raise SourceError(f"Cannot read {path}: {error.strerror}.", "Check its rights.") from None
    if size == 0:
        raise SourceError(f"{path} is empty (0 bytes).", "Copy the video again.")
    # Absolute: FFmpeg takes what stands before a colon for a protocol.
    capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise SourceError(
            f"{path} is not a video that can be read: damaged, cut off or of another format.",
            "Copy it again, or convert it to H.264 in an .mp4 file.",
        )
    return CaptureSource(capture, "video", str(path))


def open_camera(name: str) -> CaptureSource:
    """Open a camera by number or device path.

    Raises:
        SourceError: there is no such camera, or another program holds it.
    """
    cv2 = load_cv2("Reading a camera")
    index = int(name.removeprefix("/dev/video"))
    present = sorted(str(p) for p in Path("/dev").glob("video*"))
    capture = cv2.VideoCapture(index)
    if not capture.isOpened():
        found = f"found {', '.join(present)}" if present else "no /dev/video* exists"
        raise SourceError(
            f"Camera {name} cannot be opened ({found}).",
            "Plug it in, close programs that use it, or try: --source synthetic:",
        )
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest frame, not one of a second ago
    return CaptureSource(capture, "camera", f"Camera {name}")


def open_stream(uri: str) -> CaptureSource:
    """Open a network stream; gives up after five seconds.

    Raises:
        SourceError: nothing answers there.
    """
    cv2 = load_cv2("Reading a stream")
    limits = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _OPEN_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _READ_MS,
    ]  # fmt: skip
    capture = cv2.VideoCapture(uri, cv2.CAP_FFMPEG, limits)
    if not capture.isOpened():
        raise SourceError(
            f"No stream answers at {without_password(uri)}.",
            "Check address, port, user and network; try it in another player.",
        )
    return CaptureSource(capture, "stream", without_password(uri))


def without_password(uri: str) -> str:
    """Return a URI without its password, fit for messages and logs.

    >>> without_password("rtsp://me:secret@camera/1")
    'rtsp://me:***@camera/1'
    """
    scheme, separator, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    user, at, machine = host.rpartition("@")
    if not at:
        return uri
    name, colon, _ = user.partition(":")
    return f"{scheme}{separator}{name}{colon}{'***' if colon else ''}@{machine}{slash}{path}"
