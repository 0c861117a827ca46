"""A video file as sink: written under another name, complete and playable whenever it is closed."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

from prunus.apps.common.opencv import load_cv2
from prunus.apps.io.sinks.registry import require_space
from prunus.apps.io.sources.registry import Frame, Image, SourceInfo
from prunus.runtime.card.artifact import write_error
from prunus.runtime.errors import HostError, SourceError

_CHECK_EVERY = 16  # frames between two looks at the disk
_PICTURE_FPS = 2.0  # rate of a video made of pictures
_CODECS = {".avi": "MJPG"}  # MPEG-4 elsewhere: every OpenCV wheel can write it


class VideoSink:
    """Write frames into a video; the file gets its name when it is closed.

    It is finished also after Ctrl-C, an error or a full disk, with the frames written until then.
    Frames of another size than the first are fitted into it with grey borders.

    Args:
        path: File to write; its ending picks the container.
        info: Source, for size and rate.

    Raises:
        SourceError: the folder cannot be written, or no encoder takes this size.
        HostError: the disk is full.
    """

    def __init__(self, path: Path, info: SourceInfo) -> None:
        self.name = str(path)
        self._path, self._frames = path, 0
        # The codec stores colour for blocks of 2x2 pixels.
        self._size = max(info.width & ~1, 2), max(info.height & ~1, 2)
        self._temporary = _temporary_beside(path)
        self._writer: Any = None
        try:
            require_space(path)
            self._writer = self._open(info.fps or _PICTURE_FPS)
        except BaseException:
            self._temporary.unlink(missing_ok=True)
            raise

    def _open(self, fps: float) -> Any:
        cv2 = load_cv2("Writing videos")
        codec = cv2.VideoWriter_fourcc(*_CODECS.get(self._path.suffix.lower(), "mp4v"))
        writer = cv2.VideoWriter(str(self._temporary), cv2.CAP_FFMPEG, codec, fps, self._size)
        if not writer.isOpened():
            raise SourceError(
                f"No encoder writes {self._path.name} at {self._size[0]}x{self._size[1]} pixels.",
                "Use an .mp4 file, or a folder of pictures.",
            )
        return writer

    def write(self, frame: Frame, drawn: Image) -> None:
        """Append a frame."""
        if self._writer is None:
            return
        if self._frames % _CHECK_EVERY == 0:
            # The encoder swallows write errors; a growing file on a nearly full disk must stop.
            require_space(self._path, drawn.nbytes)
        self._writer.write(_fit(drawn, self._size))
        self._frames += 1

    def close(self) -> None:
        """Finish the file and give it its name, unless nothing was written."""
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        try:
            if self._frames == 0:
                return
            self._verify()
            with contextlib.suppress(OSError):
                self._temporary.chmod(0o666 & ~_umask())
            self._temporary.replace(self._path)
        except OSError as error:
            raise write_error(error, self._path) from None
        finally:
            self._temporary.unlink(missing_ok=True)

    def _verify(self) -> None:
        """Open the file again: an encoder that ran out of disk leaves one that does not play."""
        cv2 = load_cv2()
        capture = cv2.VideoCapture(str(self._temporary), cv2.CAP_FFMPEG)
        try:
            playable = bool(capture.isOpened() and capture.read()[0])
        finally:
            capture.release()
        if not playable:
            raise HostError(
                f"{self.name} could not be completed: the finished file does not play.",
                "The disk may be full: free some space, or choose another folder with -o.",
            )


def _temporary_beside(path: Path) -> Path:
    try:
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent
        )
    except OSError as error:
        raise write_error(error, path) from None
    os.close(handle)
    return Path(name)


def _fit(image: Image, size: tuple[int, int]) -> Image:
    """Return the image at exactly `size` (width, height), keeping its aspect."""
    width, height = size
    rows, columns = image.shape[:2]
    if (columns, rows) == size:
        return image
    if columns - width in (0, 1) and rows - height in (0, 1):  # an odd frame loses its last line
        return image[:height, :width]
    cv2 = load_cv2()
    scale = min(width / columns, height / rows)
    inner = max(round(columns * scale), 1), max(round(rows * scale), 1)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    fitted: Image = cv2.copyMakeBorder(
        cv2.resize(image, inner, interpolation=cv2.INTER_AREA),
        top, height - inner[1] - top, left, width - inner[0] - left,
        cv2.BORDER_CONSTANT, value=(96, 96, 96),
    )  # fmt: skip
    return fitted


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
