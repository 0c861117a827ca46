"""Videos through PyAV, with their time stamps; cameras through OpenCV."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prunus.apps.io.frames import Frame, Image, SourceInfo
from prunus.apps.io.sources.clip import Clip
from prunus.apps.io.timeline import TimeLine
from prunus.runtime.errors import MissingDependencyError, SourceError
from prunus.runtime.pictures.opencv import load_cv2

_ASSUMED_FPS = 25.0  # for sources that do not tell


class VideoSource:
    """Frames of a video file, each at the time that its container tells.

    Args:
        path: The file.

    Raises:
        SourceError: it cannot be read, or holds no picture.
        MissingDependencyError: PyAV is not installed.
    """

    def __init__(self, path: Path) -> None:
        self._clip, self._closed = Clip(path), False
        self.warnings: list[str] = []
        seen = self._clip.info
        if not seen.width:
            raise SourceError(f"{path} holds no picture.", "Give a video file.")
        fps = seen.fps if 0 < seen.fps <= 1000 else _ASSUMED_FPS
        self.info = SourceInfo(
            "video", seen.width, seen.height, fps, round(seen.seconds * fps), live=False,
            time_base=seen.time_base, pixel_aspect=seen.pixel_aspect,
            sound=str(path) if seen.sample_rate_hz else "",
        )  # fmt: skip

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames; a file that ends early leaves a warning."""
        index, seconds, step = 0, 0.0, 1 / self.info.fps
        for seconds, image in self._clip.frames():
            if self._closed:
                return
            yield Frame(index, image, "", time.perf_counter_ns(), seconds=seconds)
            index += 1
        self.warnings += [f"{self._clip.title}: {note}" for note in self._clip.warnings]
        self._clip.warnings.clear()
        told = self._clip.info
        if told.stated and seconds + step < _whole(told.seconds, 2 * step):
            self.warnings.append(_cut(self._clip.title, index, self.info.frames))

    def close(self) -> None:
        """End the iteration."""
        self._closed = True


def _whole(length: float, slack: float) -> float:
    """Return what a whole file has at least: containers round, only a clear gap means a cut."""
    return length - max(slack, length / 50)


def _cut(name: str, index: int, frames: int) -> str:
    return f"{name} ends after {index} of {frames} frames: it is cut off or damaged"


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
        line, step = TimeLine(), 1 / self.info.fps
        while image is not None:
            seconds = None if self.info.live else line.place(self._stamp(), step)
            yield Frame(index, image, "", time.perf_counter_ns(), seconds=seconds)
            index += 1
            image = self._read()
        if self._closed:
            return
        if self.info.live:
            raise SourceError(
                f"{self._name} stopped delivering after {index} frames.",
                "Check the cable or the network and start again.",
            )
        if index < _whole(self.info.frames, 2):
            self.warnings.append(_cut(self._name, index, self.info.frames))

    def _stamp(self) -> float | None:
        """Return the container's time of the latest picture in seconds."""
        with self._lock:
            if self._closed:
                return None
            return float(self._capture.get(load_cv2().CAP_PROP_POS_MSEC)) / 1000

    def close(self) -> None:
        """Release the device or file."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._capture.release()


def open_video(path: str | Path) -> VideoSource | CaptureSource:
    """Open a video file, through OpenCV where PyAV is not installed.

    Raises:
        SourceError: it cannot be read, or is not a video.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = len(file.read(16))
    except OSError as error:
        raise SourceError(f"Cannot read {path}: {error.strerror}.", "Check its rights.") from None
    if size == 0:
        raise SourceError(f"{path} is empty (0 bytes).", "Copy the video again.")
    with contextlib.suppress(MissingDependencyError):
        try:
            return VideoSource(path)
        except SourceError:
            raise _no_video(path) from None
    cv2 = load_cv2("Reading videos")
    # Absolute: FFmpeg takes what stands before a colon for a protocol.
    capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise _no_video(path)
    return CaptureSource(capture, "video", str(path))


def _no_video(path: Path) -> SourceError:
    return SourceError(
        f"{path} is not a video that can be read: damaged, cut off or of another format.",
        "Copy it again, or convert it to H.264 in an .mp4 file.",
    )


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
