"""The newest frame for any number of viewers: encoded once for all, when the first of them asks."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prunus.apps.io.frames import Image
from prunus.runtime.pictures.opencv import load_cv2

_QUALITY = 85


@dataclass(frozen=True, slots=True)
class Shot:
    """A frame that can be shown; its images must not be changed any more.

    Attributes:
        drawn: uint8 (height, width, 3) BGR with everything drawn on it.
        clean: The same without; None where only the drawn one is to be seen.
        captured_ns: `time.perf_counter_ns` of the capture.
        data: What goes with it, as JSON.
        number: Counts from 1.
    """

    drawn: Image
    clean: Image | None = None
    captured_ns: int = 0
    data: Mapping[str, Any] = field(default_factory=dict)
    number: int = 0


@dataclass(frozen=True, slots=True)
class News:
    """What a viewer gets.

    Attributes:
        tick: To wait for newer ones.
        shot: The newest frame, None before the first.
        jpeg: It as JPEG; empty for one that the viewer has seen.
        closed: There will be no more.
    """

    tick: int
    shot: Shot | None
    jpeg: bytes
    closed: bool


class _Encoder:
    """JPEG of one picture at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._data, self._number = b"", 0

    def __call__(self, image: Image, number: int) -> bytes:
        if number != self._number:
            cv2 = load_cv2()
            done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
            self._data, self._number = data.tobytes() if done else b"", number
        return self._data


class Newest:
    """The newest frame, and everybody who waits for it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._shot: Shot | None = None
        self._tick = 0
        self._encoders = {True: _Encoder(), False: _Encoder()}
        self.closed = False

    def put(
        self, drawn: Image, clean: Image | None, captured_ns: int, data: Mapping[str, Any]
    ) -> None:
        """Offer a frame; see `Shot`."""
        with self._changed:
            number = 1 if self._shot is None else self._shot.number + 1
            self._shot = Shot(drawn, clean, captured_ns, data, number)
        self.wake()

    def wake(self) -> None:
        """Give all viewers news, with or without a newer frame."""
        with self._changed:
            self._tick += 1
            self._changed.notify_all()

    def wait(self, tick: int, seen: int, timeout: float, *, clean: bool = False) -> News:
        """Return news later than `tick`, or what there is after `timeout` seconds.

        Args:
            tick: Of the news before, -1 for none.
            seen: Number of the frame that is known, 0 for none.
            timeout: Seconds.
            clean: Without drawing, where there is such a picture.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.closed or self._tick > tick, timeout)
        encode = self._encoders[clean]
        with encode.lock:  # whoever waits here gets a frame newer than the one that he waited for
            with self._changed:
                shot, tick, closed = self._shot, self._tick, self.closed
            jpeg = b""
            if shot is not None and shot.number != seen:
                plain = shot.clean if clean else None
                jpeg = encode(shot.drawn if plain is None else plain, shot.number)
        return News(tick, shot, jpeg, closed)

    def close(self) -> None:
        """Wake all viewers for the last time."""
        with self._changed:
            self.closed = True
        self.wake()
