"""Clips with picture and sound, written with the times that they come with."""

from __future__ import annotations

import contextlib
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from prunus.apps.io.frames import Audio, Image, SoundFormat, SourceInfo
from prunus.apps.io.sinks.registry import require_space
from prunus.apps.io.sources.clip import load_av
from prunus.runtime.card.artifact import atomic_path, write_error
from prunus.runtime.errors import SourceError

_BIT_RATE = 64_000  # of the sound, per channel
_SOUND_HZ = 48_000  # every AAC player knows it
_LAYOUTS = ("mono", "stereo", "5.1", "7.1")  # others become stereo
_RESERVE_EVERY = 16  # frames between two looks at the disk
_TICK = Fraction(1, 90_000)  # clock of pictures that bring none
# Faster than the default: the encoder shares the machine with the networks. Quality is constant,
# because a bit rate would need the number of pictures per second, which nobody knows of a camera.
_H264 = {"preset": "veryfast", "crf": "20"}
_STEADY = {"qmin": "2", "qmax": "4"}
# An index in pieces, until the whole one is written at the end: what a full disk or a lost process
# leaves can be played until the last piece.
_SAFE = {"movflags": "hybrid_fragmented", "frag_duration": "1000000", "flush_packets": "1"}


class ClipWriter:
    """Write pictures and sound into one file, which is complete when it is closed.

    Pictures keep their times. AVI has an even pace only: there they are repeated, or left out where
    several fall together.

    Args:
        path: File to write, e.g. what `atomic_path` gave; its ending picks the container.
        width: Of the picture in pixels; an odd last column is cut.
        height: Of the picture in pixels.
        fps: Pictures per second: the pace of AVI and of pictures that come without a time.
        sample_rate_hz: Of the sound that is given, 0 for a clip without sound.
        layout: Name of its channels.
        time_base: Seconds of a tick of the pictures' clock.
        pixel_aspect: Width of a pixel over its height.
        shown: Its name in messages, where `path` is none that users know.

    Raises:
        SourceError: the folder cannot be written, or no encoder takes this size.
        HostError: the disk is full.
        MissingDependencyError: PyAV is not installed.
    """

    def __init__(
        self,
        path: Path,
        width: int,
        height: int,
        fps: float,
        sample_rate_hz: int = 0,
        *,
        layout: str = "mono",
        time_base: Fraction | None = None,
        pixel_aspect: Fraction = Fraction(1),
        shown: Path | None = None,
    ) -> None:
        av = load_av()
        self._shown = shown or path
        self._path, self._written, self._samples, self._rate = path, 0, 0, sample_rate_hz
        self._size = (max(width & ~1, 2), max(height & ~1, 2))
        ending = path.suffix.lower()
        self._even = ending == ".avi"
        pace = Fraction(fps).limit_denominator(1001)
        self._tick = 1 / pace if self._even else time_base or _TICK
        self._step = max(round(1 / pace / self._tick), 1)  # ticks between pictures
        self._lasting: dict[int, int] = {}  # ticks, by time
        self._held: Any = None  # the latest picture: how long it lasts is not known yet
        require_space(path)
        try:
            # FFmpeg knows that since 7.1, and ends sound at the wrong time that way.
            able = av.library_versions["libavformat"] >= (61, 7) and not sample_rate_hz
            safe = _SAFE if able and ending in (".mp4", ".mov") else {}
            self._container = av.open(str(path), "w", container_options=dict(safe))
            self._picture = self._stream(pace, pixel_aspect)
            self._sound: Any = None
            if sample_rate_hz:
                self._layout = layout
                target = layout if layout in _LAYOUTS else "stereo"
                # AAC begins before time 0, which AVI cannot say: it would move the pictures.
                codec, form = ("pcm_s16le", "s16") if self._even else ("aac", "fltp")
                self._sound = self._container.add_stream(codec, rate=_SOUND_HZ, layout=target)
                self._sound.bit_rate = _BIT_RATE * self._sound.codec_context.layout.nb_channels
                self._convert = av.AudioResampler(format=form, layout=target, rate=_SOUND_HZ)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            size = f"{width}x{height} pixels"
            raise SourceError(
                f"No encoder writes {path.suffix} files at {size}: {_reason(error)}.",
                "Use an .mp4 file.",
            ) from None

    def _stream(self, pace: Fraction, pixel_aspect: Fraction) -> Any:
        known = load_av().codecs_available
        codec, how = ("libx264", _H264) if "libx264" in known else ("mpeg4", _STEADY)
        if self._even:
            codec, how = "mjpeg", _STEADY
        stream = self._container.add_stream(codec, rate=pace, options=how)
        stream.width, stream.height = self._size
        stream.pix_fmt = "yuvj420p" if self._even else "yuv420p"
        if pixel_aspect != 1:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        stream.time_base = stream.codec_context.time_base = self._tick
        return stream

    @property
    def seconds(self) -> float:
        """Time at which the latest picture ends, as far as it is known."""
        return 0.0 if self._held is None else float((self._held.pts + self._step) * self._tick)

    def picture(self, image: Image, seconds: float | None = None) -> None:
        """Append a picture, uint8 (height, width, 3) BGR of the size of the first.

        Args:
            image: The picture.
            seconds: Its time; None for one step behind the picture before.
        """
        if self._written % _RESERVE_EVERY == 0:
            require_space(self._path, image.nbytes)
        self._written += 1
        cut = np.ascontiguousarray(image[: self._size[1], : self._size[0]])
        frame = load_av().VideoFrame.from_ndarray(cut, format="bgr24")
        before = -self._step if self._held is None else self._held.pts
        ticks = before + self._step if seconds is None else round(Fraction(seconds) / self._tick)
        if self._held is not None:
            if self._even and ticks <= before:
                frame.pts, self._held = before, frame
                return
            ticks = max(ticks, before + 1)
            self._step = ticks - before
            self._encode()
        elif self._even and ticks > 0:  # AVI begins at zero
            frame.pts, self._held, self._step = 0, frame, ticks
            self._encode()
        frame.pts, self._held = ticks, frame

    def _encode(self) -> None:
        """Encode the held picture, which lasts `_step` ticks."""
        frame, first = self._held, self._held.pts
        frame.time_base = self._tick
        if self._even:
            for frame.pts in range(first, first + self._step):
                self._mux(self._picture.encode(frame))
            self._step = 1
            return
        self._lasting[first] = self._step
        self._mux(self._timed(self._picture.encode(frame)))

    def _timed(self, packets: Any) -> Any:
        """Tell how long pictures last; encoders forget it, and then the last one lasts no time."""
        for packet in packets:
            packet.duration = self._lasting.pop(packet.pts, 0)
        return packets

    def sound(self, block: Audio) -> None:
        """Append float32 samples, (T,) mono or (channels, T), limited to [-1, 1]."""
        block = np.atleast_2d(block)
        if not block.shape[-1] or self._sound is None:
            return
        limited = np.ascontiguousarray(np.clip(block, -1.0, 1.0), np.float32)
        frame = load_av().AudioFrame.from_ndarray(limited, "fltp", self._layout)
        frame.sample_rate = self._rate
        frame.pts, frame.time_base = self._samples, Fraction(1, self._rate)
        self._samples += block.shape[-1]
        for part in self._convert.resample(frame):
            self._mux(self._sound.encode(part))

    def _mux(self, packets: Any) -> None:
        try:
            self._container.mux(packets)
        except (load_av().error.FFmpegError, OSError) as error:
            raise write_error(OSError(28, _reason(error)), self._shown) from None

    def close(self) -> None:
        """Finish the file; safe to call twice."""
        if self._container is None:
            return
        container = self._container
        try:
            with contextlib.closing(container):
                if self._held is not None:
                    self._encode()
                if self._samples:
                    for part in self._convert.resample(None):
                        self._mux(self._sound.encode(part))
                if self._sound is not None:
                    self._mux(self._sound.encode(None))
                self._mux(self._timed(self._picture.encode(None)))
        finally:
            self._container = None


def open_clip_sink(uri: str, info: SourceInfo, sound: SoundFormat, stack: ExitStack) -> ClipWriter:
    """Open a clip of pictures and sound; it takes its name when the stack closes well."""
    path = stack.enter_context(atomic_path(uri))
    writer = ClipWriter(path, info.width, info.height, round(info.fps), sound.sample_rate_hz)
    return stack.enter_context(contextlib.closing(writer))


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).rstrip(".")
