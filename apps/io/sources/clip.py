"""Clips with picture and sound, read and written with their time stamps.

OpenCV reads no sound, so clips go through PyAV, which brings FFmpeg along. Frames and sound are two
streams with clocks of their own; both are read here on the clock of the container, so that what was
recorded together stays together whatever the frame rate does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.apps.io.sinks.registry import require_space
from prunus.apps.io.sources.registry import Image
from prunus.runtime.card.artifact import write_error
from prunus.runtime.errors import MissingDependencyError, SourceError

Audio = npt.NDArray[np.float32]
CLIPS = (".avi", ".mkv", ".mov", ".mp4", ".webm")
_QUARTER = 90  # degrees
_BIT_RATE = 128_000  # of the sound
_SOUND_HZ = 48_000  # every AAC player knows it
_RESERVE_EVERY = 16  # frames between two looks at the disk


@dataclass(frozen=True, slots=True)
class ClipInfo:
    """What is known about a clip before it is decoded.

    Attributes:
        width: Of the upright picture in pixels, 0 without pictures.
        height: Of the upright picture in pixels.
        fps: Average rate, 0 when unknown.
        seconds: Length, 0 when unknown.
        sample_rate_hz: Of the sound, 0 without sound.
        channels: Of the sound.
    """

    width: int
    height: int
    fps: float
    seconds: float
    sample_rate_hz: int
    channels: int


class Clip:
    """An open clip.

    Args:
        path: The file.

    Attributes:
        info: What is known before decoding.

    Raises:
        SourceError: it cannot be read.
        MissingDependencyError: PyAV is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        self.title = str(path)
        if not Path(path).is_file():
            raise SourceError(f"Clip not found: {path}.", "Give a video file with sound.")
        with contextlib.closing(self._open()) as container:
            picture, sound = _first(container, "video"), _first(container, "audio")
            self._start = float((container.start_time or 0) / 1_000_000)
            # Only a frame knows whether the camera was held upright.
            first = next(self._decoded(container, picture)) if picture else None
            shape = _upright(first).shape if first is not None else (0, 0)
            self.info = ClipInfo(
                width=shape[1],
                height=shape[0],
                fps=float(picture.average_rate or 0) if picture else 0.0,
                seconds=float((container.duration or 0) / 1_000_000),
                sample_rate_hz=int(sound.codec_context.sample_rate) if sound else 0,
                channels=int(sound.codec_context.channels) if sound else 0,
            )

    def _open(self) -> Any:
        av = load_av()
        try:
            # Absolute: FFmpeg takes what stands before a colon for a protocol. Titles and comments
            # of a clip may be in any encoding.
            return av.open(str(Path(self.title).absolute()), metadata_errors="replace")
        except (av.error.FFmpegError, OSError) as error:
            raise SourceError(
                f"{self.title} cannot be read: {_reason(error)}.",
                "Give a video file with sound, e.g. H.264 and AAC in an .mp4 file.",
            ) from None

    def frames(self) -> Iterator[tuple[float, Image]]:
        """Yield time in seconds and picture, uint8 (height, width, 3) BGR, upright.

        Raises:
            SourceError: the file breaks off in a way that cannot be decoded.
        """
        with contextlib.closing(self._open()) as container:
            stream = _first(container, "video")
            if stream is None:
                raise SourceError(f"{self.title} holds no picture.", "Give a video file.")
            stream.thread_type = "AUTO"
            index, rate = 0, self.info.fps or 25.0
            for frame in self._decoded(container, stream):
                time = frame.time if frame.time is not None else self._start + index / rate
                index += 1
                yield float(time) - self._start, _upright(frame)

    def sound(self) -> Iterator[tuple[float, Audio]]:
        """Yield time in seconds and mono samples at the clip's rate: the mean of its channels."""
        with contextlib.closing(self._open()) as container:
            stream = _first(container, "audio")
            if stream is None:
                raise SourceError(f"{self.title} holds no sound.", "Give a video file with sound.")
            convert = load_av().AudioResampler(format="fltp")
            rate, samples = self.info.sample_rate_hz, 0
            for frame in self._decoded(container, stream):
                time = frame.time if frame.time is not None else self._start + samples / rate
                for part in convert.resample(frame):
                    block = part.to_ndarray().mean(axis=0, dtype=np.float32)
                    samples += len(block)
                    yield float(time) - self._start, block

    def _decoded(self, container: Any, stream: Any) -> Iterator[Any]:
        av = load_av()
        got, broken = 0, ""
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except av.error.FFmpegError as error:  # a damaged packet; the next one may be whole
                broken = _reason(error)
                continue
            got += len(decoded)
            yield from decoded
        if not got:
            what = "picture" if stream.type == "video" else "sound"
            reason = f": {broken}" if broken else ""
            raise SourceError(
                f"{self.title} has a stream of {what} that gives nothing{reason}.",
                "Play it with another program, or convert it to H.264 and AAC.",
            )


class ClipWriter:
    """Write pictures and sound into one file, which is complete when it is closed.

    Args:
        path: File to write, e.g. what `atomic_path` gave; its ending picks the container.
        width: Of the picture in pixels; an odd last column is cut.
        height: Of the picture in pixels.
        fps: Pictures per second.
        sample_rate_hz: Of the sound that is given, mono.

    Raises:
        SourceError: the folder cannot be written, or no encoder takes this size.
        HostError: the disk is full.
    """

    def __init__(self, path: Path, width: int, height: int, fps: int, sample_rate_hz: int) -> None:
        av = load_av()
        self._path, self._written = path, 0
        self._size = (max(width & ~1, 2), max(height & ~1, 2))
        require_space(path)
        self._samples = 0
        try:
            self._container = av.open(str(path), "w")
            # Faster than its default: the encoder shares the machine with the networks.
            fast = {"preset": "veryfast"}
            codec, how = ("libx264", fast) if "libx264" in av.codecs_available else ("mpeg4", {})
            self._picture = self._container.add_stream(codec, rate=fps, options=how)
            self._picture.width, self._picture.height = self._size
            self._picture.pix_fmt = "yuv420p"
            self._picture.bit_rate = max(self._size[0] * self._size[1] * fps // 5, 400_000)
            self._picture.codec_context.time_base = Fraction(1, fps)
            self._sound = self._container.add_stream("aac", rate=_SOUND_HZ, layout="mono")
            self._sound.bit_rate = _BIT_RATE
            self._convert = av.AudioResampler(format="fltp", layout="mono", rate=_SOUND_HZ)
            self._rate = sample_rate_hz
        except (av.error.FFmpegError, OSError, ValueError) as error:
            size = f"{width}x{height} pixels"
            raise SourceError(
                f"No encoder writes {path.suffix} files at {size}: {_reason(error)}.",
                "Use an .mp4 file.",
            ) from None

    def picture(self, image: Image) -> None:
        """Append a picture, uint8 (height, width, 3) BGR of the size of the first."""
        if self._written % _RESERVE_EVERY == 0:
            require_space(self._path, image.nbytes)
        cut = np.ascontiguousarray(image[: self._size[1], : self._size[0]])
        frame = load_av().VideoFrame.from_ndarray(cut, format="bgr24")
        frame.pts, frame.time_base = self._written, self._picture.codec_context.time_base
        self._written += 1
        self._mux(self._picture.encode(frame))

    def sound(self, block: Audio) -> None:
        """Append mono float32 samples, limited to [-1, 1]."""
        if not len(block):
            return
        av = load_av()
        limited = np.clip(block, -1.0, 1.0).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(limited), "fltp", "mono")
        frame.sample_rate = self._rate
        frame.pts, frame.time_base = self._samples, Fraction(1, self._rate)
        self._samples += len(block)
        for part in self._convert.resample(frame):
            self._mux(self._sound.encode(part))

    def _mux(self, packets: Any) -> None:
        try:
            self._container.mux(packets)
        except (load_av().error.FFmpegError, OSError) as error:
            raise write_error(OSError(28, _reason(error)), self._path) from None

    def close(self) -> None:
        """Finish the file; safe to call twice."""
        if self._container is None:
            return
        try:
            if self._samples:
                for part in self._convert.resample(None):
                    self._mux(self._sound.encode(part))
            self._mux(self._sound.encode(None))
            self._mux(self._picture.encode(None))
        finally:
            self._container.close()
            self._container = None


def load_av() -> Any:
    """Return the PyAV module; raises MissingDependencyError without it."""
    try:
        import av
    except ImportError:
        raise MissingDependencyError("av", "clips", "Clips with sound") from None
    av.logging.set_level(None)
    return av


def _upright(frame: Any) -> Image:
    """Return a decoded frame as BGR, turned as its display matrix says."""
    turns = round((getattr(frame, "rotation", 0) or 0) / _QUARTER)  # counter-clockwise
    turned: Image = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="bgr24"), turns))
    return turned


def _first(container: Any, kind: str) -> Any:
    found = getattr(container.streams, kind)
    return found[0] if found else None


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).rstrip(".")
