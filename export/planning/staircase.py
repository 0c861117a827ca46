"""Latency over the number of tokens is a staircase: counts on a flat step save nothing.

Matrix units and caches work in fixed portions, so that fewer tokens are often no faster. On such a
step the largest count costs the same and drops the least.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from prunus.export.planning.points import Point
from prunus.runtime.measure.latency import AGREEMENT


def drop_flat(points: Sequence[Point], tolerance: float = AGREEMENT) -> list[Point]:
    """Mark the cuts that save no time against larger counts of the same method and blocks.

    A count is dropped where one that is at least as large at every cut, and was not dropped itself,
    is slower by no more than `tolerance` of its own latency; dense counts as the largest. Steps are
    measured from their top, so that many small savings in a row add up to one that counts.

    Args:
        points: One back end's; points without cuts are returned as they are.
        tolerance: Saving that is none: two windows of one network differ by as much.

    Returns:
        The points in their order, `dropped` filled in with the step's top.
    """
    families: dict[tuple[str, tuple[int, ...]], list[Point]] = defaultdict(list)
    for point in points:
        if point.candidate.keep:
            families[point.candidate.method, point.candidate.blocks].append(point)
    reasons: dict[str, str] = {}
    for family in families.values():
        tops: list[Point] = []
        for point in sorted(family, key=lambda p: p.candidate.keep, reverse=True):
            top = _top_of(point, tops, tolerance)
            if top is not None:
                reasons[point.candidate.name] = top
            else:
                tops.append(point)
    return [replace(p, dropped=reasons.get(p.candidate.name, p.dropped)) for p in points]


def _top_of(point: Point, tops: Sequence[Point], tolerance: float) -> str | None:
    """Return why a point is on a flat step, None where it is the top of one."""
    larger = [
        top
        for top in tops
        if all(a >= b for a, b in zip(top.candidate.keep, point.candidate.keep, strict=True))
    ]
    best = min(larger, key=lambda top: top.share, default=None)
    if best is not None and point.share >= best.share * (1 - tolerance):
        counts = "/".join(map(str, best.candidate.keep))
        return f"flat step: {counts} takes {best.share:.3f} of dense, this one {point.share:.3f}"
    if point.share >= 1 - tolerance:
        return f"saves nothing: {point.share:.3f} of dense"
    return None
