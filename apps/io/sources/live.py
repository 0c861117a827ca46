"""Live frames on the capture clock: read from the moment of opening, so that none is old.

Opening a model takes seconds. A device or a server that nobody reads meanwhile keeps its frames,
and hands them out later as if they were new; read at once, each gets the time at which it came.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator

from prunus.apps.io.frames import Frame, Source
from prunus.runtime.pipeline.queue import END, Channel

_BACKLOG = 16  # frames that wait for whoever reads
_OLD_NS = 500_000_000  # frames that waited longer when the first one is asked for are left out


class LiveSource:
    """Frames of a live source with the time of their capture; the first one asked for is time 0.

    Args:
        source: Iterated in a thread of its own from now on; closed with this.
    """

    def __init__(self, source: Source[Frame]) -> None:
        self.info, self._source = source.info, source
        self._frames = Channel(_BACKLOG, newest=True)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="source", daemon=True)
        self._thread.start()

    @property
    def warnings(self) -> list[str]:
        """Return what the source has to say."""
        return self._source.warnings

    def _read(self) -> None:
        try:
            for frame in self._source:
                if not self._frames.put(frame):
                    break
        except BaseException as error:  # raised where the frames are taken
            self._error = error
        finally:
            self._frames.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the source ends or is closed."""
        begun = time.perf_counter_ns()
        frame = self._frames.get()
        while frame is not END and begun - frame.captured_ns > _OLD_NS:
            frame = self._frames.get()
        first, last = None, -1.0
        while frame is not END:
            first = frame.captured_ns if first is None else first
            # Two frames of one burst may carry the same time.
            last = max((frame.captured_ns - first) / 1e9, last + 1e-3)
            yield dataclasses.replace(frame, seconds=last)
            frame = self._frames.get()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Release the device or connection."""
        self._frames.abort()
        self._source.close()
