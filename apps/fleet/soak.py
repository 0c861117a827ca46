"""How fast a model is on this device, how much memory it takes, and whether heat slows it down."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prunus.runtime.errors import UsageError
from prunus.runtime.measure.latency import (
    Latency,
    peak_memory_bytes,
    summarise,
    time_window,
    warm_up,
)
from prunus.runtime.options import quantity
from prunus.runtime.progress import Progress
from prunus.runtime.session.base import Session
from prunus.runtime.tasks.metrics import Array

_ZONES = Path("/sys/class/thermal")
_WINDOWS = 10  # of a soak; the first and the last are compared
_SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Soak:
    """A long run, cut into windows of equal time.

    Attributes:
        seconds: Its length.
        medians_ms: Median of each window.
        drift: Share by which the median of the last three windows is above the first's.
        hottest_c: Highest temperature that the system told at the end of a window, None where it
            tells none.
    """

    seconds: float
    medians_ms: tuple[float, ...]
    drift: float
    hottest_c: float | None

    def told(self, allowed: float) -> str:
        """Return a sentence about a drift that is too large."""
        return (
            f"the median rose by {100 * self.drift:.0f} % in {self.seconds:g} s, allowed "
            f"{100 * allowed:g} %"
        )


@dataclass(frozen=True, slots=True)
class Times:
    """What a session was measured at.

    Attributes:
        latency: Of a call.
        settled: Whether the warm-up before it ended by itself.
        peak_bytes: Largest resident size of the process since the model was opened.
        soak: The long run, None where none was asked for.
    """

    latency: Latency
    settled: bool
    peak_bytes: int
    soak: Soak | None

    def to_dict(self) -> dict[str, Any]:
        """Return what a receipt says."""
        return {
            "latency": {**dataclasses.asdict(self.latency), "settled": self.settled},
            "peak_memory_mib": round(self.peak_bytes / 2**20, 1) or None,
            "soak": dataclasses.asdict(self.soak) if self.soak else None,
        }


def read_seconds(text: str) -> float:
    """Return a time in seconds; raises UsageError.

    >>> read_seconds("5m"), read_seconds("90s")
    (300.0, 90.0)
    """
    found = quantity(text, *_SECONDS)
    if found is None:
        raise UsageError(f"Got --soak {text}; expected a time.", "Example: --soak 5m")
    return found[0] * _SECONDS[found[1]]


def measure(
    session: Session,
    feeds: Sequence[Mapping[str, Array]],
    seconds: float,
    long: str,
    progress: Progress,
) -> Times:
    """Time a session, then let it run on.

    Args:
        session: Open.
        feeds: Whole inputs that the calls cycle through.
        seconds: Of timing; the warm-up before it takes up to as long again.
        long: Time of the soak, as ``5m``; ``0s`` for none.
        progress: Told about windows of the soak.
    """
    turns = itertools.cycle(feeds)

    def call() -> object:
        return session.run(next(turns))

    settled = warm_up(lambda: time_window(call, seconds / 8)).settled
    latency = summarise(time_window(call, seconds), "engine")
    total = read_seconds(long)
    run = _soak(call, total, progress) if total else None
    return Times(latency, settled, peak_memory_bytes(), run)


def _soak(call: Callable[[], object], seconds: float, progress: Progress) -> Soak:
    medians, heat = [], temperatures()
    for k in range(_WINDOWS):
        progress.update(k, _WINDOWS, "soak")
        medians.append(float(np.median(time_window(call, seconds / _WINDOWS))))
        heat += temperatures()
    drift = float(np.median(medians[-3:])) / medians[0] - 1.0
    return Soak(seconds, tuple(medians), drift, max(heat) if heat else None)


def temperatures() -> list[float]:
    """Return what the system's thermal zones tell, in degrees Celsius; none where it has none."""
    found = []
    for zone in sorted(_ZONES.glob("thermal_zone*/temp")):
        with contextlib.suppress(OSError, ValueError):
            found.append(int(zone.read_text()) / 1000)
    return found
