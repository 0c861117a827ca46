"""Network streams through PyAV: RTSP cameras, and what else sends pictures without an end.

A camera stamps its pictures; they arrive early or late by what the network does. Each gets its own
time on this machine's clock: its stamp, moved by the smallest delay seen so far.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

from prunus.apps.io.frames import Frame, SourceInfo
from prunus.apps.io.rows import without_password
from prunus.apps.io.sources.clip import load_av, picture_rate, reason, upright
from prunus.apps.io.timeline import CaptureClock, TimeLine
from prunus.runtime.errors import SourceError
from prunus.runtime.limits import ANSWER_S, PICTURE_S

_ASSUMED_FPS = 25.0  # for streams that do not tell
_BAD_IN_A_ROW = 250  # packets that give nothing; a stream may begin far from a whole picture
_OPTIONS = {
    "rtsp_flags": "prefer_tcp",  # without holes; UDP where the camera has nothing else
    "analyzeduration": "1000000",  # microseconds: what is looked at first is late by as much
    # A list of pieces (HLS) may name anything; files of this machine are none of its business.
    "protocol_whitelist": "rtp,srtp,udp,tcp,tls,http,https,httpproxy,crypto,data",
}


class StreamSource:
    """Frames of a network stream, each with the time of its capture.

    Args:
        uri: Address.

    Raises:
        SourceError: nothing answers there in time, or it sends no picture.
        MissingDependencyError: PyAV is not installed.
    """

    def __init__(self, uri: str) -> None:
        self._av, self._name = load_av(), without_password(uri)
        self.warnings: list[str] = []
        self._lock = threading.Lock()  # a container that is closed while it is read crashes
        self._closed = False
        try:
            self._container = self._av.open(
                uri, options=_OPTIONS, timeout=(ANSWER_S, PICTURE_S), metadata_errors="replace"
            )
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            late = isinstance(error, self._av.error.ExitError)
            why = f"nothing usable in {ANSWER_S:g} s" if late else reason(error)
            raise SourceError(
                f"No stream answers at {self._name}: {why}.",
                "Check address, port, user and network; try it in another player.",
            ) from None
        pictures = self._container.streams.video
        if not pictures:
            self._container.close()
            raise SourceError(f"{self._name} sends no picture.", "Give the address of a camera.")
        self._stream = pictures[0]
        self._stream.thread_type = "SLICE"  # threads by frames hold pictures back
        self._ends = bool(self._container.duration)  # a film, not a camera
        self._frames = self._decoded()
        try:
            self._first: Any = next(self._frames, None)
        except SourceError:
            self.close()
            raise
        if self._first is None:
            self.close()
            raise SourceError(
                f"{self._name} ended before its first picture.", "Is the camera switched on?"
            )
        height, width = upright(self._first).shape[:2]
        fps = picture_rate(self._stream)
        self.info = SourceInfo(
            "stream", width, height, fps if 0 < fps <= 1000 else _ASSUMED_FPS, 0, live=True
        )

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames; a camera that ends is an error, a film that ends is not."""
        line, clock, step = TimeLine(), CaptureClock(), 1 / self.info.fps
        frame, index, start = self._first, 0, None
        self._first = None
        while frame is not None:
            stamp = frame.time
            start = stamp if start is None else start
            placed = line.place(None if stamp is None else stamp - (start or 0.0), step)
            captured = clock.captured(placed, time.perf_counter_ns() / 1e9)
            yield Frame(index, upright(frame), "", round(captured * 1e9))
            index += 1
            frame = next(self._frames, None)
        if not self._closed and not self._ends:
            raise self._stopped(f"no more after {index} frames")

    def _decoded(self) -> Iterator[Any]:
        bad, packets = 0, self._container.demux(self._stream)
        try:
            while True:
                with self._lock:
                    if self._closed:
                        return
                    packet = next(packets, None)
                    if packet is None:
                        return
                    try:
                        frames = packet.decode()
                    except self._av.error.FFmpegError:  # a damaged packet; the next may be whole
                        frames = []
                bad = 0 if frames else bad + 1
                if bad > _BAD_IN_A_ROW:
                    raise self._stopped(f"{bad} packets in a row gave no picture")
                yield from frames
        except self._av.error.ExitError:
            raise self._stopped(f"nothing came for {PICTURE_S:g} s") from None
        except (self._av.error.FFmpegError, OSError) as error:
            raise self._stopped(reason(error)) from None
        finally:
            if self._closed:
                self._release()

    def _stopped(self, why: str) -> SourceError:
        return SourceError(
            f"{self._name} stopped: {why}.", "Check the camera and the network, and start again."
        )

    def close(self) -> None:
        """End the connection; a thread that waits for a picture ends it when it wakes."""
        self._closed = True
        self._release()

    def _release(self) -> None:
        if self._lock.acquire(blocking=False):
            try:
                self._container.close()
            finally:
                self._lock.release()
