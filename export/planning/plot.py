"""One picture of a plan: accuracy against measured latency, a panel for each back end."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prunus.export.planning.choice import front
from prunus.export.planning.points import PLAINNESS, Candidate, Point
from prunus.export.planning.record import BackendPlan, Plan
from prunus.runtime.card.artifact import atomic_path
from prunus.runtime.errors import MissingDependencyError

_WIDTH, _HEIGHT = 980, 720
_LEFT, _RIGHT, _TOP, _BOTTOM = 100, 30, 90, 190
_INK, _GREY, _PALE = (40, 40, 40), (130, 130, 130), (225, 225, 225)
_BUDGET = (60, 60, 200)
# Of series in their order, blue, green, red; told apart by people who see few colours as well.
_COLOURS = (
    (178, 114, 0), (0, 94, 213), (115, 158, 0), (167, 121, 204), (0, 159, 230), (233, 180, 86),
    (30, 30, 120), (120, 120, 0),
)  # fmt: skip
_FONT = 0  # cv2.FONT_HERSHEY_SIMPLEX

Series = tuple[str, str, tuple[int, ...]]


def draw(plan: Plan) -> np.ndarray:
    """Return the picture, (H, W, 3) uint8 BGR; points on flat steps are ticks on the floor.

    Raises:
        MissingDependencyError: OpenCV is not installed.
    """
    cv2 = _cv2()
    panels = [_Panel(cv2, plan, told).drawn() for told in plan.backends]
    foot = np.full((60, _WIDTH * len(panels), 3), 255, np.uint8)
    _text(foot, plan.judgement, (20, 22), _INK, 0.5)
    cpu = f"{plan.environment['cpu']}, {plan.environment['threads']} threads, {plan.clock} time"
    _text(foot, cpu, (20, 46), _GREY, 0.5)
    return np.vstack([np.hstack(panels), foot])


def write_picture(picture: np.ndarray, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    cv2 = _cv2()
    with atomic_path(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", picture)[1].tobytes())


def _cv2() -> Any:
    try:
        import cv2
    except ImportError:
        raise MissingDependencyError("cv2", "apps", "The picture of a plan") from None
    return cv2


def _series(candidate: Candidate) -> Series:
    return candidate.kind, candidate.method or candidate.reference, candidate.blocks


def _title(series: Series) -> str:
    kind, name, blocks = series
    if kind == "blocks":
        return "fewer blocks"
    if kind == "dense":
        return "dense"
    where = f" @{'/'.join(map(str, blocks))}" if blocks else ""
    return f"{name.rpartition('/')[2]}{where}" + (" (constant)" if kind == "constant" else "")


def _label(candidate: Candidate) -> str:
    if candidate.keep:
        return "/".join(map(str, candidate.keep))
    return str(candidate.depth) if candidate.kind == "blocks" else ""


@dataclass(frozen=True, slots=True)
class _Axis:
    low: float
    high: float
    start: int
    end: int

    def at(self, value: float) -> int:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start))

    def ticks(self) -> list[float]:
        """Return some five round values."""
        rough = (self.high - self.low) / 5
        unit = 10.0 ** np.floor(np.log10(rough))
        step = next(unit * k for k in (1, 2, 2.5, 5, 10) if unit * k >= rough)
        first = int(np.ceil(self.low / step - 1e-9))
        return [k * step for k in range(first, int(np.floor(self.high / step + 1e-9)) + 1)]


class _Panel:
    """The picture of one back end."""

    def __init__(self, cv2: Any, plan: Plan, told: BackendPlan) -> None:
        self.cv2, self.plan, self.told = cv2, plan, told
        self.canvas = np.full((_HEIGHT, _WIDTH, 3), 255, np.uint8)
        self.judged = [p for p in told.points if p.accuracy is not None and not p.dropped]
        values = [float(p.accuracy or 0) for p in self.judged]
        pad = 0.08 * (max(values) - min(values)) or 0.01
        wide = max(1.1, 1.05 * max(p.share for p in told.points))
        self.x = _Axis(0, wide, _LEFT, _WIDTH - _RIGHT)
        self.y = _Axis(min(values) - pad, max(values) + pad, _HEIGHT - _BOTTOM, _TOP)
        order = sorted(told.points, key=lambda p: PLAINNESS.index(p.candidate.kind))
        self.series = list(dict.fromkeys(_series(p.candidate) for p in order))

    def drawn(self) -> np.ndarray:
        self._axes()
        self._front()
        for number, series in enumerate(self.series):
            points = [p for p in self.told.points if _series(p.candidate) == series]
            self._line(series, sorted(points, key=lambda p: p.share), self._colour(series))
            self._key(number, series)
        if self.told.best is not None:
            self.cv2.circle(self.canvas, self._place(self.told.best), 15, _BUDGET, 2, 16)
        return self.canvas

    def _colour(self, series: Series) -> tuple[int, int, int]:
        if series[0] == "dense":
            return _INK
        return _COLOURS[(self.series.index(series) - 1) % len(_COLOURS)]

    def _place(self, point: Point) -> tuple[int, int]:
        assert point.accuracy is not None
        return self.x.at(point.share), self.y.at(point.accuracy)

    def _axes(self) -> None:
        cv2, canvas = self.cv2, self.canvas
        for value in self.x.ticks():
            at = self.x.at(value)
            cv2.line(canvas, (at, self.y.start), (at, self.y.end), _PALE, 1)
            _text(canvas, f"{value:g}", (at - 12, self.y.start + 22), _INK, 0.5)
        for value in self.y.ticks():
            at = self.y.at(value)
            cv2.line(canvas, (self.x.start, at), (self.x.end, at), _PALE, 1)
            _text(canvas, f"{value:.5g}", (self.x.start - 66, at + 5), _INK, 0.5)
        cv2.rectangle(canvas, (self.x.start, self.y.end), (self.x.end, self.y.start), _GREY, 1)
        _text(canvas, self.told.description, (_LEFT, 32), _INK, 0.6)
        best = self.told.best
        name = f"recommended: {best.candidate.name}" if best else "nothing meets what was asked for"
        _text(canvas, name, (_LEFT, 60), _BUDGET, 0.55)
        under = f"measured latency, share of dense ({self.told.dense.p50_ms:.2f} ms)"
        _text(canvas, under, (_LEFT + 220, self.y.start + 46), _INK, 0.55)
        told = self.plan.judged + (" ON NOISE" if self.plan.noise else "")
        _text(canvas, told, (14, _TOP - 12), _INK, 0.55)
        budget = self.plan.budget
        if budget is not None:
            share = budget.value if budget.unit == "x" else budget.value / self.told.dense.p50_ms
            if share <= self.x.high:
                for y in range(self.y.end, self.y.start, 12):
                    cv2.line(canvas, (self.x.at(share), y), (self.x.at(share), y + 6), _BUDGET, 1)

    def _front(self) -> None:
        places = [self._place(p) for p in front(self.told.points)]
        for (x, y), (after, higher) in itertools.pairwise(places):
            self.cv2.line(self.canvas, (x, y), (after, y), (190, 190, 190), 5)
            self.cv2.line(self.canvas, (after, y), (after, higher), (190, 190, 190), 5)

    def _line(self, series: Series, points: Sequence[Point], colour: tuple[int, int, int]) -> None:
        judged = [p for p in points if p in self.judged]
        for one, other in itertools.pairwise(judged):
            self.cv2.line(self.canvas, self._place(one), self._place(other), colour, 1, 16)
        for point in points:
            if point not in self.judged:
                at = (self.x.at(point.share), self.y.start - 8)
                self.cv2.drawMarker(self.canvas, at, colour, self.cv2.MARKER_TILTED_CROSS, 9, 1, 16)
                continue
            x, y = self._place(point)
            self._mark(series[0], (x, y), colour)
            _text(self.canvas, _label(point.candidate), (x + 9, y - 8), colour, 0.4)

    def _mark(self, kind: str, at: tuple[int, int], colour: tuple[int, int, int]) -> None:
        """Draw a dot for cuts by a method, a hollow shape for what stands beside them."""
        cv2, (x, y) = self.cv2, at
        if kind == "pruned":
            cv2.circle(self.canvas, at, 6, colour, -1, 16)
            return
        shapes = {
            "dense": _star(x, y),
            "blocks": [(x - 6, y - 6), (x + 6, y - 6), (x + 6, y + 6), (x - 6, y + 6)],
            "rival": [(x, y - 9), (x + 9, y), (x, y + 9), (x - 9, y)],
            "constant": [(x, y - 8), (x + 8, y + 6), (x - 8, y + 6)],
        }
        shape = np.asarray(shapes[kind], np.int32)
        cv2.fillPoly(self.canvas, [shape], colour if kind == "dense" else (255, 255, 255))
        cv2.polylines(self.canvas, [shape], True, colour, 2, 16)

    def _key(self, number: int, series: Series) -> None:
        column, row = number % 3, number // 3
        at = (_LEFT + 290 * column, _HEIGHT - _BOTTOM + 78 + 24 * row)
        colour = self._colour(series)
        self._mark(series[0], at, colour)
        _text(self.canvas, _title(series), (at[0] + 16, at[1] + 5), colour, 0.5)


def _star(x: int, y: int) -> list[tuple[int, int]]:
    angles = np.pi * (np.arange(10) / 5 - 0.5)
    radii = np.where(np.arange(10) % 2, 5, 13)
    across, down = np.rint(radii * np.cos(angles)), np.rint(radii * np.sin(angles))
    return [(x + int(a), y + int(d)) for a, d in zip(across, down, strict=True)]


def _text(canvas: np.ndarray, text: str, at: tuple[int, int], colour: Any, size: float) -> None:
    plain = text.encode("ascii", "replace").decode()  # the font has no other letters
    _cv2().putText(canvas, plain, at, _FONT, size, colour, 1, 16)
