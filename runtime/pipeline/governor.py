"""Hold a time budget per frame: pick among variants and rates of one work from measured times.

A ladder has rungs from best to cheapest: which variant of a model runs (pruning level, precision,
input size), and how much of the work each frame does (all, every second unit, ...). Before a frame
the governor is told how much work there is and names a rung; after it, how long the frame took. It
looks at the 90th percentile of about the last second:

* a rung that does not hold the budget is left at once, for the best one that is expected to;
* a better rung is taken when it has been expected to fit, with room to spare, for half a second;
* what it expects of a rung that is not running is what the running one takes, times the measured
  ratio of the two (at first: that of their arithmetic), so a busy machine slows all of them alike;
* a better rung that failed soon after is expected to be dearer for a while: no flapping.

There is no clock inside, nor chance: the same log gives the same decisions (`replay`).
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunus.runtime.errors import UsageError

_LOG_VERSION = 1
_MEDIAN = 50.0


@dataclass(frozen=True, slots=True)
class Rung:
    """One way to do the work.

    Attributes:
        name: For people, e.g. ``L1, half``.
        variant: Number of the variant that runs.
        every: A frame does one part in so many of its units.
    """

    name: str
    variant: int
    every: int = 1

    def units(self, work: int) -> int:
        """Return how many units a frame with so much work does: at least one, if there is any.

        >>> Rung("half", 0, 2).units(5)
        3
        """
        return -(-work // self.every)


@dataclass(frozen=True, slots=True)
class Settings:
    """How a governor weighs.

    Attributes:
        percentile: Of the times that must be within the budget.
        window_s: Times older than that are forgotten.
        window: Most samples that count.
        least: Samples of a rung before its times count.
        room: A better rung must be expected to take at most this share of the budget.
        settle_s: How long it must have been expected to.
        trial_s: A better rung that is left sooner has failed.
        penalty: By which factor it is expected to be dearer then.
        forgive_s: Time in which half of that is forgotten.
        other_speed: A machine that became slower or faster by this factor is another one: measured
            ratios give way to those of the costs.
        alarm: Frames in a row that take twice the budget: no percentile is waited for.
    """

    percentile: float = 90.0
    window_s: float = 1.0
    window: int = 40
    least: int = 6
    room: float = 0.9
    settle_s: float = 0.5
    trial_s: float = 8.0
    penalty: float = 1.25
    forgive_s: float = 15.0
    other_speed: float = 1.35
    alarm: int = 3


@dataclass(frozen=True, slots=True)
class Sample:
    """What one frame took.

    Attributes:
        units: Units that were done.
        unit_ms: Milliseconds in them.
        spent_ms: Milliseconds of the whole frame.
        rare_ms: Milliseconds of it in work that few frames have, such as a search.
    """

    units: int
    unit_ms: float
    spent_ms: float
    rare_ms: float = 0.0


@dataclass(slots=True)
class _Seen:
    """One frame in the window."""

    now_s: float
    per_unit_ms: float | None
    rest_ms: float
    spent_ms: float


class Governor:
    """Pick a rung for each frame.

    Args:
        rungs: Best first.
        costs: Expected time of one unit in each variant, in any unit common to all (operations).
        budget_ms: Time that a frame may take.
        settings: How to weigh.

    Attributes:
        frames: How many frames were counted.
        held: How many of them were within the budget.
        changes: How often the rung changed.
        use: Frames by the name of the rung.
        beyond: No rung is expected to hold the budget: what comes is the best effort.

    Raises:
        UsageError: no rung, or a budget that is not above zero.

    Example:
        >>> governor = Governor([Rung("dense", 0), Rung("pruned", 1)], [2.0, 1.0], 33.0)
        >>> for frame in range(30):
        ...     rung = governor.pick(frame / 30, work=4)
        ...     took = 4 * (12.0, 6.0)[rung.variant]
        ...     governor.add(Sample(units=4, unit_ms=took, spent_ms=took + 2))
        >>> governor.rung.name, governor.changes
        ('pruned', 1)
    """

    def __init__(
        self,
        rungs: Sequence[Rung],
        costs: Sequence[float],
        budget_ms: float,
        settings: Settings | None = None,
    ) -> None:
        if not rungs or not math.isfinite(budget_ms) or budget_ms <= 0:
            raise UsageError(
                f"Got {len(rungs)} variants and a budget of {budget_ms:g} ms.",
                "Give at least one, and a time above zero, e.g. --budget 33ms",
            )
        if any(not 0 <= r.variant < len(costs) or r.every < 1 for r in rungs) or min(costs) <= 0:
            raise ValueError(f"rungs {list(rungs)} do not fit {len(costs)} costs {list(costs)}")
        self.rungs, self.budget_ms = tuple(rungs), float(budget_ms)
        self.settings = settings or Settings()
        self.frames = self.held = self.changes = 0
        self.use: dict[str, int] = {}
        self.beyond = False
        self.costs = tuple(float(c) for c in costs)
        self._ratio = list(self.costs)
        self._at, self._since = 0, -math.inf
        self._seen: deque[_Seen] = deque(maxlen=self.settings.window)
        self._own = 0  # of the samples, those of the running variant
        self._before: tuple[int, float, float] | None = None  # variant, median and percentile left
        self._speed: float | None = None  # time per cost when a ratio was learnt
        self._fits_since: float | None = None
        self._beyond_since: float | None = None
        self._came_up_s = -math.inf
        self._penalty = [1.0] * len(rungs)
        self._penalty_s = -math.inf
        self._now, self._work = -math.inf, 0

    @property
    def rung(self) -> Rung:
        """The rung of the current frame."""
        return self.rungs[self._at]

    def pick(self, now_s: float, work: int) -> Rung:
        """Name the rung of the frame that begins.

        Args:
            now_s: Time in seconds, on any clock that never goes back.
            work: Units that the frame would do in full.
        """
        self._now, self._work = now_s, work
        while self._seen and now_s - self._seen[0].now_s > self.settings.window_s:
            if len(self._seen) <= self.settings.least:
                break
            self._seen.popleft()
        self._own = min(self._own, len(self._seen))
        self._learn()
        expected = self._expected()
        if expected is not None:
            self._move(expected)
        self.use[self.rung.name] = self.use.get(self.rung.name, 0) + 1
        return self.rung

    def add(self, sample: Sample) -> None:
        """Take the times of the frame that ended."""
        per_unit = sample.unit_ms / sample.units if sample.units else None
        rest = max(sample.spent_ms - sample.unit_ms - sample.rare_ms, 0.0)
        steady = sample.spent_ms - sample.rare_ms
        self._seen.append(_Seen(self._now, per_unit, rest, steady))
        self._own += 1
        self.frames += 1
        self.held += sample.spent_ms <= self.budget_ms

    def line(self) -> str:
        """Return the state for people."""
        share = self.held / self.frames if self.frames else 1.0
        state = " beyond all variants" if self.beyond else f" held {share:.0%}"
        return f"budget {self.budget_ms:.0f} ms{state}: {self.rung.name}"

    # What is expected

    def _unit_ms(self, percentile: float | None = None) -> float | None:
        """Return a percentile of the time of a unit in the running variant."""
        own = [s.per_unit_ms for s in list(self._seen)[-self._own :] if s.per_unit_ms is not None]
        if self._own == 0 or len(own) < min(self.settings.least, 3):
            return None
        return _percentile(own, percentile or self.settings.percentile)

    def _learn(self) -> None:
        """Correct the ratio of two variants once both were measured, one right after the other.

        The one that was left gets the difference, so that what is said of the others still refers
        to the one that runs. What was learnt on a machine of another speed is forgotten.
        """
        unit = self._unit_ms(_MEDIAN)
        if unit is None or unit <= 0:
            return
        running = self.rung.variant
        if self._before is not None and self._own >= 2 * self.settings.least:
            variant, before, _ = self._before
            if variant != running and before > 0:
                self._ratio[variant] = self._ratio[running] * before / unit
                self._speed = unit / self._ratio[running]
            self._before = None
        elif self._before is None and self._speed is not None:
            other = unit / self._ratio[running] / self._speed
            if not 1 / self.settings.other_speed < other < self.settings.other_speed:
                self._ratio, self._speed = list(self.costs), None

    def _expected(self) -> list[float] | None:
        """Return the expected percentile of each rung in milliseconds, None while unknown."""
        unit, running = self._unit_ms(), self.rung.variant
        if unit is None and self._before is not None:  # just changed: from what was before
            variant, _, before = self._before
            unit = before * self._ratio[running] / self._ratio[variant]
        if unit is None or not self._seen:
            return None
        rest = _percentile([s.rest_ms for s in self._seen], self.settings.percentile)
        return [
            rest + r.units(self._work) * unit * self._ratio[r.variant] / self._ratio[running]
            for r in self.rungs
        ]

    # What is done

    def _move(self, expected: Sequence[float]) -> None:
        settings, budget = self.settings, self.budget_ms
        fits = [e <= budget for e in expected]
        self._tell_beyond(any(fits))
        self._forgive()
        if not fits[self._at] and self._sure():
            # Down, or back up where less work makes a better one fit: the first that does.
            below = [k for k in range(self._at + 1, len(fits)) if fits[k]]
            cheapest = min(range(len(expected)), key=lambda k: (expected[k], k))
            target = below[0] if below else cheapest
            if target != self._at and expected[target] < expected[self._at]:
                if target > self._at and self._now - self._came_up_s < settings.trial_s:
                    self._penalty[self._at] = min(self._penalty[self._at] * settings.penalty, 4.0)
                self._go(target)
            return
        roomy = [
            k for k in range(self._at) if expected[k] * self._penalty[k] <= settings.room * budget
        ]
        if not roomy:
            self._fits_since = None
            return
        if self._fits_since is None:
            self._fits_since = self._now
        waited = self._now - max(self._fits_since, self._since)
        if waited >= settings.settle_s and self._own >= settings.least:
            self._came_up_s = self._now
            self._go(roomy[0])

    def _sure(self) -> bool:
        """Tell whether the times of this rung are known well enough to leave it."""
        last = list(self._seen)[-self.settings.alarm :]
        alarm = len(last) == self.settings.alarm and all(
            s.spent_ms > 2 * self.budget_ms for s in last
        )
        return self._own >= self.settings.least or (alarm and self._own >= self.settings.alarm)

    def _go(self, target: int) -> None:
        if self.rungs[target].variant != self.rung.variant:
            middle, high = self._unit_ms(_MEDIAN), self._unit_ms()
            if middle is not None and high is not None:
                self._before = (self.rung.variant, middle, high)
            self._own = 0
        self._at, self._since, self._fits_since = target, self._now, None
        self.changes += 1

    def _forgive(self) -> None:
        if self._now > self._penalty_s > -math.inf:
            kept = 0.5 ** ((self._now - self._penalty_s) / self.settings.forgive_s)
            self._penalty = [1 + (p - 1) * kept for p in self._penalty]
        self._penalty_s = self._now

    def _tell_beyond(self, any_fits: bool) -> None:
        if any_fits:
            self._beyond_since, self.beyond = None, False
        elif self._beyond_since is None:
            self._beyond_since = self._now
        elif self._now - self._beyond_since >= self.settings.window_s:
            self.beyond = True


def _percentile(values: Sequence[float], percentile: float) -> float:
    """Return a percentile of a few values, the higher neighbour where it falls between two."""
    return sorted(values)[math.ceil(percentile / 100 * (len(values) - 1))]


def header(governor: Governor) -> dict[str, Any]:
    """Return the first row of a log: all that decisions depend on besides the frames."""
    return {
        "governor": _LOG_VERSION,
        "budget_ms": governor.budget_ms,
        "costs": list(governor.costs),
        "rungs": [dataclasses.asdict(r) for r in governor.rungs],
        "settings": dataclasses.asdict(governor.settings),
    }


def row(now_s: float, work: int, rung: Rung, sample: Sample) -> dict[str, Any]:
    """Return the row of one frame."""
    return {"now_s": now_s, "work": work, "rung": rung.name, **dataclasses.asdict(sample)}


def replay(lines: Iterable[str]) -> Iterator[tuple[Mapping[str, Any], Rung]]:
    """Decide again from a log; yield each frame's row and the rung that comes out now.

    Args:
        lines: JSON, first a `header`, then `row` by `row`; other keys are left alone.

    Raises:
        UsageError: it is not such a log.
    """
    rows = (json.loads(line) for line in lines)
    try:
        first = next(rows)
        if first["governor"] != _LOG_VERSION:
            raise ValueError(f"version {first['governor']}")
        governor = Governor(
            [Rung(**r) for r in first["rungs"]],
            first["costs"],
            first["budget_ms"],
            Settings(**first["settings"]),
        )
        for one in rows:
            rung = governor.pick(one["now_s"], one["work"])
            yield one, rung
            governor.add(
                Sample(one["units"], one["unit_ms"], one["spent_ms"], one.get("rare_ms", 0.0))
            )
    except (KeyError, TypeError, ValueError, StopIteration) as error:
        raise UsageError(
            f"This is no log of a governor ({type(error).__name__}: {error}).",
            "Write one with: prunus run pose --log FILE.jsonl",
        ) from None
