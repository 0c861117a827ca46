"""Clips with picture and sound, read with their time stamps.

OpenCV reads no sound, so clips go through PyAV, which brings FFmpeg along. Frames and sound are two
streams with clocks of their own; both are read here on the clock of the container, so that what was
recorded together stays together whatever the frame rate does.
"""

from __future__ import annotations

import contextlib
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from prunus.apps.io.frames import Audio, AudioBlock, Image
from prunus.apps.io.timeline import Leaps, TimeLine
from prunus.runtime.errors import MissingDependencyError, SourceError

CLIPS = (".avi", ".mkv", ".mov", ".mp4", ".webm")
_LISTS = ("concat", "dash", "hls", "imf", "sdp")
_QUARTER = 90  # degrees
_LONGEST = 48 * 3600.0  # seconds; a longer clip has stamps of another clock, not such a length


@dataclass(frozen=True, slots=True)
class ClipInfo:
    """What is known about a clip before it is decoded.

    Attributes:
        width: Of the upright picture in pixels, 0 without pictures.
        height: Of the upright picture in pixels.
        fps: Average rate, 0 when unknown.
        seconds: Length, 0 when unknown.
        stated: Whether that is the length of the pictures alone, which a cut file falls short of.
        sample_rate_hz: Of the sound, 0 without sound.
        channels: Of the sound.
        layout: Name of the channels, e.g. ``stereo``.
        time_base: Seconds of one tick of the pictures' clock.
        pixel_aspect: Width of a pixel over its height, of the upright picture.
    """

    width: int
    height: int
    fps: float
    seconds: float
    sample_rate_hz: int
    channels: int
    layout: str = "mono"
    time_base: Fraction | None = None
    pixel_aspect: Fraction = Fraction(1)
    stated: bool = False


class Clip:
    """An open clip.

    Args:
        path: The file.

    Attributes:
        info: What is known before decoding.
        warnings: What was odd about the time stamps; complete once it was read.

    Raises:
        SourceError: it cannot be read.
        MissingDependencyError: PyAV is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        self.title, self.warnings, self._leaps = str(path), list[str](), Leaps()
        if not Path(path).is_file():
            raise SourceError(f"Clip not found: {path}.", "Give a video file with sound.")
        with contextlib.closing(self._open()) as container:
            picture, sound = _first(container, "video"), _first(container, "audio")
            self._start = float((container.start_time or 0) / 1_000_000)
            # Only a frame knows whether the camera was held upright.
            first = next(self._decoded(container, picture))[1] if picture else None
            seconds, stated = _length(container, picture or sound)
            shape = upright(first).shape if first is not None else (0, 0)
            self.info = ClipInfo(
                width=shape[1],
                height=shape[0],
                fps=picture_rate(picture) if picture else 0.0,
                seconds=seconds,
                stated=stated and picture is not None,
                sample_rate_hz=int(sound.codec_context.sample_rate) if sound else 0,
                channels=int(sound.codec_context.channels) if sound else 0,
                layout=_layout(sound) if sound else "mono",
                time_base=picture.time_base if picture else None,
                pixel_aspect=_pixel_aspect(picture, first) if picture else Fraction(1),
            )

    def _open(self) -> Any:
        av = load_av()
        try:
            # Absolute: FFmpeg takes what stands before a colon for a protocol. Titles and comments
            # of a clip may be in any encoding. A file that is a list of addresses opens none.
            container = av.open(
                str(Path(self.title).absolute()),
                metadata_errors="replace",
                options={"protocol_whitelist": "file"},
            )
        except (av.error.FFmpegError, OSError) as error:
            raise SourceError(
                f"{self.title} cannot be read: {reason(error)}.",
                "Give a video file with sound, e.g. H.264 and AAC in an .mp4 file.",
            ) from None
        refuse_list(container, self.title)
        return container

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
            line, length = TimeLine(self._start, self._leaps), 1 / (self.info.fps or 25.0)
            for stamp, frame in self._decoded(container, stream):
                yield line.place(stamp, length), upright(frame)
        self._judge(line, "pictures")

    def sound(self, *, mix: bool = True) -> Iterator[AudioBlock]:
        """Yield the sound at the clip's rate, as its first block has it.

        Args:
            mix: Give mono (T,), the mean of the channels; otherwise (channels, T).
        """
        with contextlib.closing(self._open()) as container:
            stream = _first(container, "audio")
            if stream is None:
                raise SourceError(f"{self.title} holds no sound.", "Give a video file with sound.")
            line, rate = TimeLine(self._start, self._leaps, ordered=False), self.info.sample_rate_hz
            form, layout = None, self.info.layout
            convert: Any = None
            for stamp, frame in self._decoded(container, stream):
                # The rate, too, may change within a clip: joined recordings, broadcasts.
                if form != (form := (frame.format.name, frame.layout.name, frame.sample_rate)):
                    convert = load_av().AudioResampler(format="fltp", layout=layout, rate=rate)
                seconds = line.place(stamp, frame.samples / frame.sample_rate)
                frame.pts = None  # the place is known; the converter must not judge it again
                for part in convert.resample(frame):
                    block: Audio = part.to_ndarray()
                    yield AudioBlock(
                        seconds, block.mean(axis=0, dtype=np.float32) if mix else block
                    )
                    seconds += block.shape[1] / rate
        self._judge(line, "sound")

    def _judge(self, line: TimeLine, what: str) -> None:
        if line.restarts:
            self.warnings.append(
                f"the time stamps of the {what} leap ({line.restarts}): what follows was placed "
                "right behind what came before"
            )

    def _decoded(self, container: Any, stream: Any) -> Iterator[tuple[float | None, Any]]:
        """Yield stamp in seconds and decoded frame, in the order of presentation."""
        av = load_av()
        got, lost, broken = 0, 0, ""
        pending = 0  # damaged packets behind which nothing whole came yet: the end of a cut file
        # AVI stores no times of presentation: its packets come at an even pace, in another order
        # than the pictures, and FFmpeg's guess from that order is late or mixed up.
        paced = container.format.name == "avi" and stream.type == "video"
        order: deque[int] = deque()
        for packet in container.demux(stream):
            pace = paced and packet.size > 0 and packet.dts is not None
            if pace:
                order.append(packet.dts)
            try:
                decoded = packet.decode()
            except av.error.FFmpegError as error:  # a damaged packet; the next one may be whole
                pending, broken = pending + 1, reason(error)
                if pace:
                    order.pop()
                continue
            got += len(decoded)
            if decoded:
                lost, pending = lost + pending, 0
            for frame in decoded:
                if paced:
                    yield (float(order.popleft() * stream.time_base) if order else None), frame
                else:
                    yield frame.time, frame
        if not got:
            what = "picture" if stream.type == "video" else "sound"
            why = f": {broken}" if broken else ""
            raise SourceError(
                f"{self.title} has a stream of {what} that gives nothing{why}.",
                "Play it with another program, or convert it to H.264 and AAC.",
            )
        if lost:
            self.warnings.append(f"{lost} packets of {stream.type} are damaged and left out")


def load_av() -> Any:
    """Return the PyAV module; raises MissingDependencyError without it."""
    try:
        import av
    except ImportError:
        raise MissingDependencyError("av", "apps", "Clips with sound") from None
    av.logging.set_level(None)
    return av


def refuse_list(container: Any, title: str) -> None:
    """Close and refuse a file that only names others: what is opened is for the user to say."""
    if container.format.name in _LISTS:
        container.close()
        raise SourceError(f"{title} is a list of other files.", "Give the video itself.")


def picture_rate(stream: Any) -> float:
    """Return pictures per second; AVI counts the fields of H.264, which are twice as many."""
    average, guessed = float(stream.average_rate or 0), float(stream.guessed_rate or 0)
    return guessed if 0 < 1.5 * guessed < average else average


def _length(container: Any, stream: Any) -> tuple[float, bool]:
    """Return the length in seconds, 0 for none that can be true, and whether it is the stream's."""
    own = 0.0
    if stream is not None:
        own = float((stream.duration or 0) * stream.time_base) or _tagged(stream)
        if stream.type == "video" and stream.frames and stream.average_rate:
            own = max(own, float(stream.frames / stream.average_rate))  # cut files keep the count
    seconds = own or float((container.duration or 0) / 1_000_000)
    known = 0 < seconds < _LONGEST
    return (seconds if known else 0.0), known and own > 0


def _tagged(stream: Any) -> float:
    """Return the length that Matroska keeps in a tag of each stream, ``00:00:08.064``, or 0."""
    found = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""), re.ASCII)
    return 3600 * int(found[1]) + 60 * int(found[2]) + float(found[3]) if found else 0.0


def _layout(stream: Any) -> str:
    """Return the name of the channels; some containers tell their number alone."""
    name = str(stream.codec_context.layout.name)
    return {"1 channels": "mono", "2 channels": "stereo"}.get(name, name)


def _pixel_aspect(stream: Any, frame: Any) -> Fraction:
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    turned = round((getattr(frame, "rotation", 0) or 0) / _QUARTER) % 2
    return 1 / aspect if turned else aspect


def upright(frame: Any) -> Image:
    """Return a decoded frame as BGR, turned as its display matrix says."""
    turns = round((getattr(frame, "rotation", 0) or 0) / _QUARTER)  # counter-clockwise
    turned: Image = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="bgr24"), turns))
    return turned


def _first(container: Any, kind: str) -> Any:
    found = getattr(container.streams, kind)
    return found[0] if found else None


def reason(error: Exception) -> str:
    """Return what FFmpeg or the system says, without a full stop."""
    return str(getattr(error, "strerror", None) or error).rstrip(".")
