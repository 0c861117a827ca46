"""Mouth crops at any times -> one crop per frame of a steady grid, on the clock of the sound.

A camera may be slower or faster than the grid, unsteady, or stop; a face may leave. Grid frame k,
of the time from k / rate to (k + 1) / rate, shows the newest crop that was taken by its middle.
Where there is none, the last mouth is held; before the first one it is neutral grey, which is
what the network sees as zero.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import TensorError

Crop = npt.NDArray[np.uint8]


class MouthGrid:
    """Decides one crop per grid frame, in order.

    Args:
        size: Rows and columns of a crop.
        rate_hz: Grid frames per second.
        grey: Value of the neutral crop.

    Attributes:
        held: Frames that were given the last mouth because no newer one came in time.
        late: Crops whose time lies before that of the crop before them.

    Example:
        >>> grid = MouthGrid(2, 25, 107)
        >>> for k in range(3):
        ...     grid.push(np.full((2, 2), k, np.uint8), k / 25)
        >>> grid.decided, grid.take(0, 2)[:, 0, 0].tolist()
        (2, [0, 1])
    """

    def __init__(self, size: int, rate_hz: int, grey: int) -> None:
        self.held = self.late = 0
        self._size, self._rate = size, rate_hz
        self._mouth: Crop = np.full((size, size), grey, np.uint8)
        self._time = -math.inf
        self._frames: deque[Crop] = deque()
        self._start = 0  # grid frame of the first one that is kept

    @property
    def decided(self) -> int:
        """Grid frames that no later crop can change."""
        return self._start + len(self._frames)

    def push(self, crop: npt.ArrayLike | None, time_s: float) -> None:
        """Take the crop of a moment; None when no face was seen then.

        Args:
            crop: (size, size) uint8 grey.
            time_s: Seconds since the first sample of the sound.

        Raises:
            TensorError: another shape or type, or a time that is not finite.
        """
        if not math.isfinite(time_s):
            raise TensorError(f"Got a mouth at {time_s} s; expected a finite time.")
        mouth = self._mouth if crop is None else self._checked(crop)
        if time_s < self._time:
            self.late += 1
        self._time = max(self._time, time_s)
        while (self.decided + 0.5) / self._rate < self._time:
            self._frames.append(self._mouth)
        self._mouth = mouth

    def hold(self, frames: int) -> None:
        """Decide everything before grid frame `frames`: no crop for it will be waited for."""
        missing = frames - self.decided
        if missing <= 0:
            return
        self.held += missing
        # The newest mouth belongs to the frames from its own time on; none before it is undecided.
        self._frames.extend([self._mouth] * missing)

    def take(self, begin: int, end: int) -> npt.NDArray[np.uint8]:
        """Return (end - begin, size, size) uint8 of decided frames; before 0, frame 0 repeats."""
        first = self._start
        return np.stack([self._frames[max(k, first) - first] for k in range(begin, end)])

    def drop_before(self, frame: int) -> None:
        """Forget earlier frames; the last decided one stays."""
        while self._start < frame and len(self._frames) > 1:
            self._frames.popleft()
            self._start += 1

    def _checked(self, crop: npt.ArrayLike) -> Crop:
        values = np.asarray(crop)
        if values.shape != (self._size, self._size) or values.dtype != np.uint8:
            raise TensorError(
                f"Got a mouth of {values.dtype} {list(values.shape)}; expected uint8 "
                f"[{self._size}, {self._size}], grey."
            )
        return values.copy()  # cameras reuse their buffers
