"""When to look for people in the whole frame: by time and by need, not by counted frames.

The finder costs several times what the joints of one person do. It is due when a period is over;
earlier, but never twice within a short pause, when somebody was lost or something moves outside the
people who are followed. While a need stays unmet the pause doubles, so that a person who is hidden
for long does not cost a search in each frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import UsageError

Frame = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]

_GRID = 96  # columns of the picture in which motion is looked for
_CHANGED = 28  # levels of 255 by which a cell must change
_MARGIN = 0.35  # of a followed person's size in which motion is theirs
_SMALLEST = 0.25  # of the smallest person's cells must move to be somebody new
_FEWEST = 6  # cells of the grid that are somebody at least


@dataclass(frozen=True, slots=True)
class Finding:
    """When the finder is due.

    Attributes:
        period_s: Longest time between two searches, in seconds.
        pause_s: Shortest time between two, whatever the need.
        every: Counted frames instead, for those who want them; None for time and need.
    """

    period_s: float = 1.0
    pause_s: float = 0.2
    every: int | None = None

    def __post_init__(self) -> None:
        if self.every is not None and self.every < 1:
            raise UsageError(f"Got every={self.every}; expected at least 1.")
        if not 0 <= self.pause_s <= self.period_s:
            raise UsageError(
                f"Got a pause of {self.pause_s} s and a period of {self.period_s} s; expected the "
                "pause to be the shorter."
            )


class Search:
    """Say frame by frame whether to look for people.

    Args:
        settings: Periods.

    Attributes:
        stretch: Factor on both periods; above 1 where time is short.
        reason: Why the last search was due: ``first``, ``time``, ``lost``, ``new``, ``count``.
    """

    def __init__(self, settings: Finding) -> None:
        self.settings, self.stretch, self.reason = settings, 1.0, ""
        self._last: float | None = None
        self._frame = -1
        self._unmet = 0
        self._scene: npt.NDArray[np.int16] = np.zeros((0, 0), np.int16)
        self._were: Sequence[Box] = ()

    def due(self, frame: Frame, now: float, boxes: Sequence[Box], lost: int) -> bool:
        """Tell whether to search now; the caller then does.

        Args:
            frame: uint8 (height, width, 3) BGR.
            now: Time in seconds; it must not fall.
            boxes: Where the followed people are.
            lost: How many of them were lost from view and are not found again.
        """
        self._frame += 1
        self.reason = self._reason(frame, now, boxes, lost)
        if self.reason:
            # A need that is still there after a search is asked again ever more rarely.
            self._unmet = self._unmet + 1 if self.reason in ("lost", "new") else 0
            self._last, self._scene, self._were = now, coarse(frame), boxes
        return bool(self.reason)

    def _reason(self, frame: Frame, now: float, boxes: Sequence[Box], lost: int) -> str:
        settings = self.settings
        if self._last is None:
            return "first"
        if settings.every is not None:
            return "count" if self._frame % settings.every == 0 or not boxes else ""
        waited = (now - self._last) / self.stretch
        if waited >= settings.period_s:
            return "time"
        patience = settings.pause_s * 2**self._unmet if boxes else settings.pause_s
        if lost and waited >= min(patience, settings.period_s):
            return "lost"
        # Where somebody stood at the last search, the background has come to light.
        theirs = (*self._were, *boxes)
        new = waited >= settings.pause_s and stirred(self._scene, frame, theirs)
        return "new" if new else ""


def coarse(frame: Frame) -> npt.NDArray[np.int16]:
    """Return every n-th pixel's green level, int16 (rows, about 96)."""
    step = max(frame.shape[1] // _GRID, 1)
    return frame[step // 2 :: step, step // 2 :: step, 1].astype(np.int16)


def stirred(scene: npt.NDArray[np.int16], frame: Frame, boxes: Sequence[Box]) -> bool:
    """Tell whether something as large as a person changed outside the boxes.

    Args:
        scene: `coarse` of an earlier frame.
        frame: uint8 (height, width, 3) BGR.
        boxes: People who are followed; what moves in and around them is theirs.
    """
    new = coarse(frame)
    if new.shape != scene.shape:
        return True
    changed = np.abs(new - scene) > _CHANGED
    step = max(frame.shape[1] // _GRID, 1)
    smallest = changed.size / 64
    for x0, y0, x1, y1 in boxes:
        wide, tall = _MARGIN * (x1 - x0) * 2, _MARGIN * (y1 - y0)
        low = np.maximum(np.array([y0 - tall, x0 - wide]) // step, 0).astype(int)
        high = np.maximum(np.array([y1 + tall, x1 + wide]) // step + 1, 0).astype(int)
        changed[low[0] : high[0], low[1] : high[1]] = False
        smallest = min(smallest, (x1 - x0) * (y1 - y0) / step**2)
    return bool(changed.sum() >= max(_SMALLEST * smallest, _FEWEST))
