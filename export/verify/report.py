"""The result of a check: plain text for people, JSON for machines, one verdict for the shell."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from prunus.runtime.errors import CheckFailedError
from prunus.runtime.json_text import json_text
from prunus.runtime.tasks.limits import Limit
from prunus.runtime.tasks.metrics import Difference


@dataclass(frozen=True, slots=True)
class Verdict:
    """One limit applied.

    Attributes:
        limit: The limit that was used.
        measured: The value it was compared with.
        passed: Whether it held.
    """

    limit: Limit
    measured: float
    passed: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """One suspect against the reference.

    Attributes:
        reference: Name of the reference runner.
        suspect: Name of the suspect runner.
        budget: Row of the budget that was applied: ``fp32``, ``fp16`` or ``int8``.
        differences: Raw and relative difference of each output.
        effect: Quantity -> value, in task units.
        verdicts: The limits, one by one.
        problems: Faults that no limit may excuse: NaN, Inf.
        notes: What was judged and where the worst case is.
    """

    reference: str
    suspect: str
    budget: str
    differences: tuple[Difference, ...]
    effect: Mapping[str, float]
    verdicts: tuple[Verdict, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every limit held and nothing was poisoned."""
        return bool(self.verdicts) and not self.problems and all(v.passed for v in self.verdicts)


@dataclass(frozen=True, slots=True)
class Report:
    """All comparisons of one artifact.

    Attributes:
        artifact: File name, without its folder.
        sha256: Hash of the file.
        model: Short name from the card.
        samples: How many inputs were compared.
        inputs_sha256: Hash of these inputs.
        comparisons: One per back end.
        divergence: What bisection found, as sentences; empty when it was not asked for.
    """

    artifact: str
    sha256: str
    model: str
    samples: int
    inputs_sha256: str
    comparisons: tuple[Comparison, ...]
    divergence: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every comparison passed."""
        return bool(self.comparisons) and all(c.passed for c in self.comparisons)

    def raise_if_failed(self) -> None:
        """Raise CheckFailedError (exit code 1) naming the first thing that failed."""
        for comparison in self.comparisons:
            if comparison.passed:
                continue
            raise CheckFailedError(
                f"{self.artifact} left its {comparison.budget} budget on {comparison.suspect}: "
                f"{_first_failure(comparison)}",
                "Find the node with --bisect; docs/numbers-differ.md explains what to do next.",
            )

    def to_json(self) -> str:
        """Return sorted, indented JSON; NaN and Inf become null."""
        raw = dataclasses.asdict(self)
        for entry, comparison in zip(raw["comparisons"], self.comparisons, strict=True):
            entry["passed"] = comparison.passed
        raw["passed"] = self.passed
        return json_text(raw, indent=1) + "\n"

    def to_text(self) -> str:
        """Return a table of plain text: raw, relative and effect side by side."""
        lines = [
            f"{self.artifact}  {self.model}  sha256 {self.sha256[:12]}  {self.samples} samples"
        ]
        for comparison in self.comparisons:
            lines += ["", *_comparison_lines(comparison)]
        if self.divergence:
            lines += ["", "bisect", *(f"  {line}" for line in self.divergence)]
        lines += ["", f"verdict: {'ok' if self.passed else 'FAILED'}"]
        return "\n".join(lines) + "\n"


def _first_failure(comparison: Comparison) -> str:
    if comparison.problems:
        return comparison.problems[0]
    for verdict in comparison.verdicts:
        if not verdict.passed:
            limit = verdict.limit
            return f"{limit.quantity} is {verdict.measured:.4g}, expected {limit.describe()}."
    return "nothing was judged."


def _comparison_lines(comparison: Comparison) -> list[str]:
    c = comparison
    lines = [f"{c.suspect} against {c.reference}, {c.budget} budget"]
    lines.append(f"  {'output':<22}{'max |diff|':>12}{'mean |diff|':>13}{'of range':>11}")
    lines += [
        f"  {d.output:<22}{d.maximum:>12.3g}{d.mean:>13.3g}{d.relative:>11.2g}"
        for d in c.differences
    ]
    judged = {v.limit.quantity: v for v in c.verdicts}
    lines.append(f"  {'effect':<22}{'value':>12}{'budget':>13}{'':>11}")
    for quantity, value in c.effect.items():
        verdict = judged.get(quantity)
        budget = verdict.limit.describe() if verdict else "-"
        mark = "" if verdict is None else "ok" if verdict.passed else "FAILED"
        lines.append(f"  {quantity:<22}{value:>12.4g}{budget:>13}{mark:>11}")
    lines += [f"  problem: {problem}" for problem in c.problems]
    lines += [f"  {note}" for note in c.notes]
    return lines
