"""A plan as it is kept: what was measured, where, on what, and what is recommended."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.export.planning.choice import Budget, difference, front, recommend
from prunus.export.planning.points import PLAINNESS, Point
from prunus.runtime.card.artifact import write_whole
from prunus.runtime.errors import CheckFailedError

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class BackendPlan:
    """What was measured on one back end.

    Attributes:
        backend: As the user named it.
        description: Back end, device, arithmetic and threads as opened.
        points: Dense first.
        best: What is recommended; None: nothing meets what was asked.
    """

    backend: str
    description: str
    points: tuple[Point, ...]
    best: Point | None

    @property
    def dense(self) -> Point:
        """The dense network."""
        return self.points[0]

    @property
    def fastest(self) -> Point:
        """The fastest of all, whatever it is good for."""
        return min(self.points, key=lambda p: p.share)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything behind a recommendation.

    Attributes:
        network: What made the network.
        inputs: Its inputs in words.
        restore: See `PlanOptions`.
        grid: See `PlanOptions`.
        outputs: See `PlanOptions`.
        weights_sha256: Of all its parameters, see `weights_hash`.
        depth: Its blocks.
        tokens: Patches that enter the first.
        judged: ``accuracy`` or ``fidelity``.
        judgement: The same as a sentence, with the samples.
        samples: How many.
        samples_sha256: Their hash.
        noise: They are noise.
        budget: Highest latency, if any.
        lose: Highest loss, if any.
        clock: ``wall`` or ``cpu``.
        environment: Machine and versions.
        notes: What could not take part, and why.
        backends: What was measured.
    """

    network: str
    inputs: tuple[str, ...]
    restore: str | None
    grid: str | None
    outputs: str | None
    weights_sha256: str
    depth: int
    tokens: int
    judged: str
    judgement: str
    samples: int
    samples_sha256: str
    noise: bool
    budget: Budget | None
    lose: float | None
    clock: str
    environment: Mapping[str, Any]
    notes: tuple[str, ...]
    backends: tuple[BackendPlan, ...]

    def to_json(self) -> str:
        """Return everything, with the front, the recommendation and its command."""
        raw = dataclasses.asdict(self)
        for row, told in zip(raw["backends"], self.backends, strict=True):
            for point in row["points"]:
                del point["draws"]  # a hundred numbers each, told by the intervals
            del row["best"]
            row["front"] = [p.candidate.name for p in front(told.points)]
            row["recommended"] = self._recommended(told)
        raw["schema_version"] = SCHEMA_VERSION
        return json.dumps(raw, sort_keys=True, indent=1, allow_nan=False)

    def _recommended(self, told: BackendPlan) -> dict[str, Any] | None:
        if told.best is None:
            return None
        leads = {other.candidate.name: difference(told.best, other) for other in self.rivals(told)}
        chosen = told.best.candidate
        return {
            "name": chosen.name,
            "kind": chosen.kind,
            "plan": chosen.plan or None,
            "command": self.command(told.best),
            "lead_95_percent": leads,
        }

    def rivals(self, told: BackendPlan) -> list[Point]:
        """Return what the recommended point has to stand beside.

        Dense, and the most accurate of each other kind within the same budget, whatever it loses;
        without a budget, of those that are no slower.
        """
        assert told.best is not None
        found = [told.dense] if told.best.candidate.kind != "dense" else []
        for kind in PLAINNESS[1:]:
            if kind != told.best.candidate.kind:
                same = [p for p in told.points if p.candidate.kind == kind]
                # Without a budget: what is no slower.
                limit = self.budget or Budget(told.best.share, "x")
                other = recommend(same, limit)
                found += [other] if other is not None else []
        return found

    def command(self, point: Point) -> str:
        """Return the command that exports a point; empty where no plan makes it."""
        chosen = point.candidate
        network = chosen.reference or self.network
        if not (chosen.plan or chosen.reference):
            return ""
        words = ["prunus", "export", "module", network]
        for given in self.inputs:
            words += ["--input", given]
        if chosen.keep:
            words += ["--plan", chosen.plan]
            words += ["--restore", self.restore] if self.restore else []
            words += ["--grid", self.grid] if self.grid else []
        words += ["--outputs", self.outputs] if self.outputs else []
        return shlex.join(words)

    def write(self, path: Path) -> None:
        """Write `to_json` to a file, whole or not at all."""
        write_whole(path, self.to_json() + "\n")

    def to_text(self) -> str:
        """Return a table a back end for people, and what is recommended."""
        lines = [self.judgement]
        if self.noise:
            lines.append("warning: judged on noise, which tells little; give --calibration")
        for told in self.backends:
            lines += ["", f"{told.backend}: {told.description}", *self._table(told)]
            lines += self._verdict(told)
        lines += ["", *(f"note: {note}" for note in self.notes)]
        where = self.environment
        clock = "CPU time of all threads" if self.clock == "cpu" else "wall clock"
        lines.append(
            f"{where['cpu']}, {where['threads']} threads, load {where['load_average'][0]}, {clock}"
        )
        return "\n".join(lines)

    def _table(self, told: BackendPlan) -> list[str]:
        width = max(len(p.candidate.name) for p in told.points)
        best = {p.candidate.name for p in front(told.points)}
        lines = [
            f"  {'':{width}}  {'MACs':>5}  {'p50 ms':>8}  {'p90 ms':>8}  {'share':>5}  "
            f"{'range':>11}  {self.judged:>8}"
        ]
        macs = told.dense.candidate.macs
        for p in sorted(told.points, key=lambda p: (PLAINNESS.index(p.candidate.kind), -p.share)):
            low, high = p.share_range
            judged = p.dropped if p.accuracy is None else f"{p.accuracy:8.4f}"
            mark = "*" if p.candidate.name in best else " "
            lines.append(
                f"{mark} {p.candidate.name:{width}}  {p.candidate.macs / macs:5.2f}  "
                f"{p.p50_ms:8.2f}  {p.p90_ms:8.2f}  {p.share:5.2f}  {low:5.2f}-{high:5.2f}  "
                f"{judged}{'' if p.steady else '  (unsteady)'}"
            )
        return [*lines, "  * none is faster and as good"]

    def _verdict(self, told: BackendPlan) -> list[str]:
        if told.best is None:
            return [f"nothing meets what was asked for: {self.shortfall(told)}"]
        best = told.best
        lines = [
            f"recommended: {best.candidate.name}, {best.share:.2f} of dense, {best.p50_ms:.2f} ms, "
            f"{self.judged} {best.accuracy:.4f}"
        ]
        if self.budget is not None and not self.budget.holds_always(best):
            low, high = best.share_range
            lines.append(
                f"  near the budget: {low:.2f} to {high:.2f} of dense in its turns, p90 "
                f"{best.p90_ms:.2f} ms"
            )
        if best.candidate.kind == "dense":
            lines.append("nothing that is faster is as good as was asked for: leave it as it is")
        for other in self.rivals(told):
            assert other.accuracy is not None and best.accuracy is not None
            lead = best.accuracy - other.accuracy
            interval = difference(best, other)
            sure = "interval not known"
            if interval is not None:
                apart = "" if interval[0] > 0 or interval[1] < 0 else ": NOT told apart"
                sure = f"95 % {interval[0]:+.4f} to {interval[1]:+.4f}{apart}"
            lines.append(f"  {lead:+.4f} against {other.candidate.name} ({sure})")
        command = self.command(best)
        if best.candidate.kind == "blocks":
            command = f"let the function keep the first {best.candidate.depth} blocks"
        return [*lines, f"  {command}"]

    def shortfall(self, told: BackendPlan) -> str:
        """Return what comes closest where nothing meets what was asked for."""
        fastest = told.fastest
        asked = [self.budget.describe()] if self.budget else []
        asked += [f"a loss of {self.lose:g}"] if self.lose is not None else []
        return (
            f"asked for {' and '.join(asked)}; the fastest, {fastest.candidate.name}, takes "
            f"{fastest.p50_ms:.2f} ms, {fastest.share:.2f} of dense"
        )

    def raise_if_unmet(self) -> None:
        """Raise CheckFailedError where a back end has nothing to recommend."""
        for told in self.backends:
            if told.best is None:
                raise CheckFailedError(
                    f"Nothing meets the budget on {told.backend}: {self.shortfall(told)}.",
                    "Raise --budget or --lose, or let more stay away: smaller --keep, earlier "
                    "--block.",
                )
