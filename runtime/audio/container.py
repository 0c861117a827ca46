"""Sound inside containers that libsndfile does not read (MP4, M4A, CAF with AAC, Matroska): PyAV.

The package ``av`` is imported when such a file is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import MissingDependencyError, SourceError

Audio = npt.NDArray[np.float32]
SLACK_SECONDS = 0.1  # containers round their length to packets
_GAP = 0.04  # seconds without a sample that become silence
_LONGEST_GAP = 300.0  # seconds; stamps that leap further are not believed
_LISTS = ("concat", "dash", "hls", "imf", "sdp")  # they only name other files
_LONGEST = 48 * 3600.0


class ContainerSound:
    """The first sound of a file, with what `soundfile.SoundFile` offers and is used of it.

    Attributes:
        samplerate: Samples per second; parts of another rate are brought to it.
        channels: Of the first part.
        frames: Samples per channel as the container has it, 0 when it does not say.
        format: Short name of the container, in capitals.
        broken: Why packets could not be decoded, empty when all could.

    Args:
        path: The file.

    Raises:
        SourceError: it holds no sound that can be decoded.
        MissingDependencyError: PyAV is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            import av
        except ImportError:
            raise MissingDependencyError("av", "clips", f"Reading sound out of {path}") from None
        av.logging.set_level(None)
        self._av, self.broken = av, ""
        try:
            # Absolute: FFmpeg takes what stands before a colon for a protocol. A file that is a
            # list of addresses opens none of them.
            self._container = av.open(
                str(path.absolute()),
                metadata_errors="replace",
                options={"protocol_whitelist": "file"},
            )
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise SourceError(f"{path} cannot be read: {_reason(error)}.", "") from None
        sounds = self._container.streams.audio
        if self._container.format.name in _LISTS:
            self.close()
            raise SourceError(f"{path} is a list of other files.", "")
        if not sounds or not sounds[0].codec_context.sample_rate:
            self.close()
            raise SourceError(f"{path} holds no sound.", "")
        self._stream = sounds[0]
        context = self._stream.codec_context
        self.samplerate, self.channels = int(context.sample_rate), int(context.channels)
        length = float((self._stream.duration or 0) * (self._stream.time_base or 0))
        length = length or float((self._container.duration or 0) / 1_000_000)
        self.frames = round(length * self.samplerate) if 0 < length < _LONGEST else 0
        self.format = str(self._container.format.name).partition(",")[0].upper()
        self._blocks, self._held = self._decoded(), np.zeros((0, self.channels), np.float32)

    def read(self, out: Audio) -> Audio:
        """Fill (T, channels) float32 as far as there is sound; returns what was filled."""
        filled = 0
        while filled < len(out):
            if not len(self._held):
                block = next(self._blocks, None)
                if block is None:
                    break
                self._held = block
            part = self._held[: len(out) - filled]
            out[filled : filled + len(part)] = part
            self._held, filled = self._held[len(part) :], filled + len(part)
        return out[:filled]

    def _decoded(self) -> Iterator[Audio]:
        """Yield (T, channels) float32 without holes."""
        form, given = None, 0
        convert: Any = None
        begin: float | None = None
        layout = str(self._stream.codec_context.layout.name)
        for frame in self._frames():
            if form != (form := (frame.format.name, frame.layout.name, frame.sample_rate)):
                convert = self._av.AudioResampler("fltp", layout, self.samplerate)
            if frame.time is not None:
                begin = frame.time if begin is None else begin
                gap = frame.time - begin - given / self.samplerate
                if _GAP < gap < _LONGEST_GAP:
                    given += (missing := round(gap * self.samplerate))
                    yield np.zeros((missing, self.channels), np.float32)
            frame.pts = None  # the place is known; the converter must not judge it again
            for part in convert.resample(frame):
                block = np.ascontiguousarray(part.to_ndarray().T)
                given += len(block)
                yield block

    def _frames(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                frames = packet.decode()
            except self._av.error.FFmpegError as error:  # the next packet may be whole
                self.broken = _reason(error)
                if isinstance(error, self._av.error.EOFError):
                    return
                continue
            yield from frames

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._container.close()


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).rstrip(".")
