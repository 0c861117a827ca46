"""A video file as sink: written under another name, complete and playable whenever it is closed."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from prunus.apps.io.frames import Audio, Frame, Image, SourceInfo
from prunus.apps.io.sinks.clip import ClipWriter
from prunus.apps.io.sinks.registry import require_space
from prunus.apps.io.sources.clip import Clip
from prunus.apps.io.timeline import joined
from prunus.runtime.card.artifact import umask, write_error
from prunus.runtime.errors import HostError, MissingDependencyError, PrunusError, SourceError
from prunus.runtime.pictures.opencv import load_cv2

_CHECK_EVERY = 16  # frames between two looks at the disk
_PICTURE_FPS = 2.0  # rate of a video made of pictures
_CODECS = {".avi": "MJPG"}  # MPEG-4 elsewhere: every OpenCV wheel can write it


class _Writer(Protocol):
    """What puts pictures into a file."""

    @property
    def seconds(self) -> float:
        """Time at which the latest picture ends."""

    def picture(self, image: Image, seconds: float | None = None) -> None:
        """Append a picture of the size of the first at its time."""

    def sound(self, block: Audio) -> None:
        """Append sound."""

    def close(self) -> None:
        """Finish the file."""


class VideoSink:
    """Write frames into a video at their times, with the sound of their source.

    The file gets its name when it is closed. It is finished also after Ctrl-C, an error or a full
    disk, with the frames written until then. Frames of another size than the first are fitted into
    it with grey borders.

    Args:
        path: File to write; its ending picks the container.
        info: Source, for size, clock and sound.

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
        self._writer: _Writer | None = None
        self._sound: _Sound | None = None
        try:
            require_space(path)
            self._writer = self._open(info)
        except BaseException:
            self._temporary.unlink(missing_ok=True)
            raise

    def _open(self, info: SourceInfo) -> _Writer:
        fps = info.fps or _PICTURE_FPS
        try:
            self._sound = _Sound(info.sound) if info.sound else None
            return ClipWriter(
                self._temporary, *self._size, fps, self._sound.rate if self._sound else 0,
                layout=self._sound.layout if self._sound else "mono",
                time_base=info.time_base, pixel_aspect=info.pixel_aspect, shown=self._path,
            )  # fmt: skip
        except MissingDependencyError:
            _tell_even_pace()
            self._sound = None
            return _OpenCvWriter(self._path, self._temporary, self._size, fps)

    def write(self, frame: Frame, drawn: Image) -> None:
        """Append a frame, and the sound until its end."""
        if self._writer is None:
            return
        if self._frames % _CHECK_EVERY == 0:
            # The encoder swallows write errors; a growing file on a nearly full disk must stop.
            require_space(self._path, drawn.nbytes)
        self._writer.picture(_fit(drawn, self._size), frame.seconds)
        self._frames += 1
        self._hear()

    def _hear(self) -> None:
        if self._sound is not None and self._writer is not None:
            for block in self._sound.until(self._writer.seconds):
                self._writer.sound(block)

    def close(self) -> None:
        """Finish the file and give it its name, unless nothing was written.

        Raises:
            HostError: the disk is full; what is there keeps its name where it plays.
        """
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        unfinished: Exception | None = None
        try:
            writer.close()
        except (PrunusError, OSError) as error:
            unfinished = error
        try:
            if self._frames:
                self._verify()
                with contextlib.suppress(OSError):
                    self._temporary.chmod(0o666 & ~umask())
                self._temporary.replace(self._path)
            if unfinished is not None:
                raise unfinished
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


class _Sound:
    """The sound of a file, handed out as far as its pictures have come."""

    def __init__(self, path: str) -> None:
        clip = Clip(path)
        self.rate, self.layout, self._given = clip.info.sample_rate_hz, clip.info.layout, 0
        self._blocks = joined(clip.sound(mix=False), self.rate)
        self._held: Audio | None = None

    def until(self, seconds: float) -> Iterator[Audio]:
        """Yield (channels, T) from where the last call ended until that time."""
        wanted = round(seconds * self.rate) - self._given
        while wanted > 0:
            try:
                block = next(self._blocks, None) if self._held is None else self._held
            except SourceError:  # a stream of sound that gives nothing: the pictures stay
                block = None
            if block is None:
                return
            self._held = block[:, wanted:] if block.shape[1] > wanted else None
            block = block[:, :wanted]
            wanted -= block.shape[1]
            self._given += block.shape[1]
            yield block


class _OpenCvWriter:
    """Write pictures at an even pace, without sound: repeated where time passes between them."""

    def __init__(self, path: Path, temporary: Path, size: tuple[int, int], fps: float) -> None:
        cv2 = load_cv2("Writing videos")
        self._fps, self._count = fps, 0
        self._held: Image | None = None
        codec = cv2.VideoWriter_fourcc(*_CODECS.get(path.suffix.lower(), "mp4v"))
        self._writer: Any = cv2.VideoWriter(str(temporary), cv2.CAP_FFMPEG, codec, fps, size)
        if not self._writer.isOpened():
            raise SourceError(
                f"No encoder writes {path.name} at {size[0]}x{size[1]} pixels.",
                "Use an .mp4 file, or a folder of pictures.",
            )

    @property
    def seconds(self) -> float:
        return self._count / self._fps

    def picture(self, image: Image, seconds: float | None = None) -> None:
        place = self._count if seconds is None else round(seconds * self._fps)
        if self._held is None:
            place, self._held = 0, image
        while self._count < place:
            self._writer.write(self._held)
            self._count += 1
        self._held = image
        if place == self._count:
            self._writer.write(image)
            self._count += 1

    def sound(self, block: Audio) -> None:
        """Leave it out."""

    def close(self) -> None:
        self._writer.release()


@functools.cache
def _tell_even_pace() -> None:
    logging.getLogger(__name__).warning(
        "PyAV is not installed: videos are written at an even pace and without sound. "
        "Install it with: pip install av"
    )


def open_video_sink(uri: str, info: SourceInfo) -> VideoSink:
    """Open a video file as sink."""
    return VideoSink(Path(uri), info)


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
