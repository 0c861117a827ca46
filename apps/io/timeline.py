"""Time stamps, checked once where they come in: in order, without leaps, beginning near zero.

Containers hold stamps of the wall clock, stamps that leap by hours, and recordings that were put
one behind the other, each beginning at zero. None of that may freeze a run or ask for hours of
silence, so a stamp that cannot follow the one before begins a new count right behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from prunus.apps.io.frames import Audio, AudioBlock

LONGEST_GAP = 300.0  # seconds without a picture or sound that are believed
_DISORDER = 0.3  # seconds by which a stamp may go back before it counts as a restart
_SAME = 1.0  # seconds by which picture and sound may disagree about one and the same leap
_OFF = 0.04  # seconds by which sound may be off its stamp before it is moved
_STEP = 1e-3  # seconds between stamps that are not in order


@dataclass(slots=True)
class Leaps:
    """By how much the stamps of one file leap, shared by its streams, so that they stay in step.

    Attributes:
        seconds: What has to be added to the stamps behind each leap, in order.
    """

    seconds: list[float] = field(default_factory=list)

    def agreed(self, number: int, own: float) -> float:
        """Return the correction behind leap `number`: what the other stream found, if alike."""
        if number < len(self.seconds) and abs(self.seconds[number] - own) < _SAME:
            return self.seconds[number]
        if number == len(self.seconds):
            self.seconds.append(own)
        return own


class TimeLine:
    """Place the stamps of one stream.

    Args:
        start: Stamp at which the file begins.
        leaps: Shared with the other stream of the file.
        ordered: Whether times must grow strictly; sound may overlap, and its reader cuts it.

    Attributes:
        restarts: How often the stamps began anew.

    Example:
        >>> line = TimeLine(10.0)
        >>> [line.place(stamp, 0.5) for stamp in (10.0, 10.5, None, 99_999.0, 99_999.5)]
        [0.0, 0.5, 1.0, 1.5, 2.0]
    """

    def __init__(
        self, start: float = 0.0, leaps: Leaps | None = None, *, ordered: bool = True
    ) -> None:
        self.restarts = 0
        self._leaps = Leaps() if leaps is None else leaps
        self._offset, self._ordered, self._leapt = -start, ordered, 0
        self._last: float | None = None
        self._next = 0.0  # where the item that follows is expected

    def place(self, stamp: float | None, length: float) -> float:
        """Return the time of an item in seconds.

        Args:
            stamp: In seconds on the clock of the container, None where it has none.
            length: Of the item in seconds, as far as it is known.
        """
        placed = self._next if stamp is None else stamp + self._offset
        if self._last is None:
            if abs(placed) > LONGEST_GAP:  # a clock of its own: the stream begins with the file
                self._offset -= placed
                self.restarts, placed = self.restarts + 1, 0.0
        elif not self._last - _DISORDER <= placed <= self._next + LONGEST_GAP:
            change = self._leaps.agreed(self._leapt, self._next - placed)
            self._offset += change
            placed += change
            self._leapt, self.restarts = self._leapt + 1, self.restarts + 1
        if self._ordered and self._last is not None:
            placed = max(placed, self._last + _STEP)
        self._last, self._next = placed, placed + length
        return placed


class CaptureClock:
    """Times of capture on this machine's clock from a camera's stamps.

    The delay of the network is what arrival minus stamp is above its minimum. The minimum may grow
    slowly, as the two clocks drift apart, and begins anew where stamps fall far behind.

    Example:
        >>> clock = CaptureClock()
        >>> [round(clock.captured(*pair), 2) for pair in ((0.0, 7.3), (0.1, 7.4), (0.2, 7.9))]
        [7.3, 7.4, 7.5]
    """

    _DRIFT = 1e-4  # seconds per second: quartz clocks differ by less
    _LOST = 5.0  # seconds behind which stamps are no longer believed

    def __init__(self) -> None:
        self._offset: float | None = None
        self._last = 0.0

    def captured(self, stamp: float, arrived: float) -> float:
        """Return the time of capture, at most `arrived`.

        Args:
            stamp: On the camera's clock, growing; seconds.
            arrived: On this machine's clock, seconds.
        """
        now = arrived - stamp
        if self._offset is None or now - self._offset > self._LOST:
            self._offset = now
        grown = self._offset + self._DRIFT * max(stamp - self._last, 0.0)
        self._offset, self._last = min(grown, now), stamp
        return stamp + self._offset


def joined(blocks: Iterable[AudioBlock], rate: int) -> Iterator[Audio]:
    """Yield sound without holes from time 0 on, every sample where its stamp says.

    Holes become silence, in pieces of a second at most; what lies before the start, or where sound
    is already, is left out. Stamps are rounded by their containers, so small differences pass.
    """
    at = 0
    for block in blocks:
        kept = block.samples
        place = round(block.seconds * rate)
        if place - at > _OFF * rate:
            for missing in range(place - at, 0, -rate):
                yield np.zeros((*kept.shape[:-1], min(missing, rate)), np.float32)
            at = place
        elif at - place > (_OFF * rate if at else 0):
            kept = kept[..., at - place :]
        at += kept.shape[-1]
        yield kept
