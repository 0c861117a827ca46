"""A governor at work in a live app: its clock, its log, and what people are told."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prunus.apps.live.line_log import LineLog
from prunus.runtime.pipeline.governor import Governor, Rung, Sample, header, row

RATES = (1, 2, 3, 4)  # a person's joints are read in every n-th frame at least


def ladder(variants: Sequence[str]) -> list[Rung]:
    """Return the rungs of variants that are ordered best first.

    Half of the people in each frame with the best network comes after the cheapest network with
    all of them: joints of one frame ago, moved on, are nearer to the truth in slow scenes only.
    """
    shown = {1: "", 2: "half", 3: "a third", 4: "a quarter"}
    return [
        Rung(", ".join(filter(None, (name, shown[every]))) or "all", number, every)
        for every in RATES
        for number, name in enumerate(variants)
    ]


@dataclass(frozen=True, slots=True)
class Held:
    """How a budget was held, for the summary.

    Attributes:
        budget_ms: Time that a frame might take.
        share: Of the frames that took no longer, 0 to 1.
        changes: How often another variant or rate was taken.
        frames: Frames by variant and rate.
        beyond: Whether no variant could hold it at the end.
    """

    budget_ms: float
    share: float
    changes: int
    frames: dict[str, int] = field(default_factory=dict)
    beyond: bool = False

    def text(self) -> str:
        """Return one line."""
        total = max(sum(self.frames.values()), 1)
        used = ", ".join(f"{n / total:.0%} {name}" for name, n in self.frames.items())
        return (
            f"budget {self.budget_ms:.0f} ms held in {self.share:.0%} of the frames; "
            f"{used}; {self.changes} changes"
        )


class Governed:
    """A governor on the clock of this machine.

    Args:
        governor: Decides.
        log: JSON lines of what it saw and decided; None for none.
        quiet: Say nothing on standard error.
        clock: Seconds.
    """

    def __init__(
        self,
        governor: Governor,
        log: Path | None = None,
        *,
        quiet: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.governor, self._quiet, self._clock = governor, quiet, clock
        self._stack = ExitStack()
        self._log = LineLog(log, header(governor), self._stack)
        self._begun = 0.0
        self._work = 0
        self._told = False

    def begin(self, work: int) -> Rung:
        """Name the rung of the frame that begins; `work` as in `Governor.pick`."""
        self._begun, self._work = self._clock(), work
        return self.governor.pick(self._begun, work)

    def end(self, units: int, unit_ms: float, rare_ms: float, stage_ms: dict[str, float]) -> None:
        """Tell what the frame took.

        Args:
            units: As in `Sample`.
            unit_ms: As in `Sample`.
            rare_ms: As in `Sample`.
            stage_ms: For the log alone.
        """
        spent = (self._clock() - self._begun) * 1000
        sample = Sample(units, unit_ms, spent, rare_ms)
        rung = self.governor.rung
        self.governor.add(sample)

        def entry() -> dict[str, Any]:
            stages = {name: round(ms, 3) for name, ms in stage_ms.items()}
            return {**row(self._begun, self._work, rung, sample), "stages": stages}

        self._log.add(entry)
        if self.governor.beyond and not self._told:
            self._told = True
            if not self._quiet:
                print(
                    f"The budget of {self.governor.budget_ms:.0f} ms is beyond every variant here; "
                    f"it goes on as fast as it can, with: {rung.name}.",
                    file=sys.stderr,
                )

    def held(self) -> Held:
        """Return the result so far."""
        g = self.governor
        share = g.held / g.frames if g.frames else 1.0
        return Held(round(g.budget_ms, 3), round(share, 4), g.changes, dict(g.use), g.beyond)

    def close(self) -> None:
        """Complete the log."""
        with self._stack:
            self._log.finish()

    def log(self) -> tuple[tuple[str, ...], list[str]]:
        """Return the name of the log, where there is a whole one, and why there is not."""
        return self._log.told()
