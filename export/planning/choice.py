"""Which point is best under a budget, and how sure that is: functions of what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from prunus.export.planning.points import PLAINNESS, Point
from prunus.runtime.errors import UsageError
from prunus.runtime.options import quantity


@dataclass(frozen=True, slots=True)
class Budget:
    """Highest latency: a share of dense (``x``) or milliseconds of the median."""

    value: float
    unit: Literal["x", "ms"]

    def holds(self, point: Point) -> bool:
        """Tell whether a point is within the budget."""
        return (point.share if self.unit == "x" else point.p50_ms) <= self.value

    def holds_always(self, point: Point) -> bool:
        """Tell whether a point was within the budget in every turn, or in 90 % of the calls."""
        return (point.share_range[1] if self.unit == "x" else point.p90_ms) <= self.value

    def describe(self) -> str:
        """Return it in words."""
        return f"{self.value:g} of dense" if self.unit == "x" else f"{self.value:g} ms"


def read_budget(text: str) -> Budget:
    """Read ``0.6x`` or ``12ms``; raises UsageError for anything else.

    >>> read_budget("12 ms")
    Budget(value=12.0, unit='ms')
    """
    value, unit = quantity(text, "x", "ms") or (0.0, "")
    if not value > 0:
        raise UsageError(
            f"Got --budget {text}; expected a share of the dense latency, or milliseconds.",
            "Examples: --budget 0.6x   --budget 12ms",
        )
    return Budget(value, "x" if unit == "x" else "ms")


def front(points: Sequence[Point]) -> list[Point]:
    """Return the judged points than which none is faster and as accurate, or more and as fast.

    In the order of their latency; of equal points, the plainest.
    """
    best = -math.inf
    found = []
    for point in sorted(_judged(points), key=lambda p: (p.share, *_goodness(p))):
        assert point.accuracy is not None
        if point.accuracy > best:
            best = point.accuracy
            found.append(point)
    return found


def recommend(
    points: Sequence[Point], budget: Budget | None = None, lose: float | None = None
) -> Point | None:
    """Return the best point, pruned or not; None where none meets what is asked.

    Args:
        points: All of one back end, dense among them; dropped and unjudged ones are passed over.
        budget: With one, the most accurate within it; equally accurate: the fastest. Without one,
            the fastest that loses no more than `lose`; equally fast: the most accurate. Equal in
            both: the plainest.
        lose: Highest loss of accuracy against dense; None: 0 without a budget, any with one.
    """
    judged = _judged(points)
    dense = next((p.accuracy for p in judged if p.candidate.kind == "dense"), None)
    if lose is None and budget is None:
        lose = 0.0
    if lose is not None and dense is not None:
        judged = [p for p in judged if p.accuracy is not None and p.accuracy >= dense - lose]
    if budget is None:
        return min(judged, key=lambda p: (p.share, *_goodness(p)), default=None)
    return min(filter(budget.holds, judged), key=_goodness, default=None)


def difference(point: Point, other: Point) -> tuple[float, float] | None:
    """Return the 95 % interval of the lead in accuracy of a point, None where it is not known.

    Paired: both were judged on the same resampled samples (bootstrap, percentiles).
    """
    if not point.draws or len(point.draws) != len(other.draws):
        return None
    low, high = np.percentile(np.subtract(point.draws, other.draws), (2.5, 97.5))
    return float(low), float(high)


def _judged(points: Sequence[Point]) -> list[Point]:
    return [p for p in points if p.accuracy is not None and not p.dropped]


def _goodness(point: Point) -> tuple[float, float, int]:
    assert point.accuracy is not None
    return -point.accuracy, point.share, PLAINNESS.index(point.candidate.kind)
