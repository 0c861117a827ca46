"""Look for people in a thread of its own, so that no frame waits for the finder."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from prunus.runtime.tasks.pose.estimator import Pose
from prunus.runtime.tasks.pose.tracking.tracker import Finder, Frame


@dataclass(frozen=True, slots=True)
class Found:
    """An answer.

    Attributes:
        people: Of the frame.
        frame: The frame itself.
        seconds: Its time.
        took_ms: How long the search took.
    """

    people: list[Pose]
    frame: Frame
    seconds: float
    took_ms: float


class BackgroundFinder:
    """Search one frame at a time; ask whenever you like.

    Args:
        finder: Called in the thread.
    """

    def __init__(self, finder: Finder) -> None:
        self._finder = finder
        self._changed = threading.Condition()
        self._offered: tuple[Frame, float] | None = None
        self._answer: Found | BaseException | None = None
        self._closed = False
        self._busy = False
        self._thread = threading.Thread(target=self._work, name="finder", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a frame is being searched, or its answer not taken yet."""
        return self._busy

    def offer(self, frame_bgr: Frame, seconds: float) -> None:
        """Search a frame; it is copied, because others may draw on it meanwhile.

        Args:
            frame_bgr: uint8 (height, width, 3) BGR.
            seconds: Its time.
        """
        with self._changed:
            self._busy, self._offered = True, (frame_bgr.copy(), seconds)
            self._changed.notify()

    def take(self) -> Found | None:
        """Return the answer once it is there, and only once; raises what the finder raised."""
        with self._changed:
            answer, self._answer = self._answer, None
            if answer is None:
                return None
            self._busy = False
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def close(self) -> None:
        """End the thread; a search that runs comes to its end first."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while self._offered is None and not self._closed:
                    self._changed.wait()
                if self._closed or self._offered is None:
                    return
                (frame, seconds), self._offered = self._offered, None
            answer: Found | BaseException
            start = time.perf_counter_ns()
            try:
                people = self._finder(frame)
                took = (time.perf_counter_ns() - start) / 1e6
                answer = Found(people, frame, seconds, took)
            except BaseException as error:  # raised where the answer is taken
                answer = error
            with self._changed:
                self._answer = answer
