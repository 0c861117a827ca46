"""What the summaries of all live apps have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prunus.runtime.errors import PrunusError
from prunus.runtime.json_text import json_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a run did.

    Attributes:
        model: Short name from the card.
        outputs: What was written.
        warnings: What went wrong without stopping the run; the exit code is then 1.
        interrupted: Whether Ctrl-C ended it.
    """

    model: str
    outputs: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    interrupted: bool = False

    def error(self) -> PrunusError | None:
        """Return what ended the run early, None when nothing did."""
        return None

    def lines(self) -> list[str]:
        """Return what happened, for people."""
        raise NotImplementedError

    def to_json(self) -> str:
        """Return sorted, indented JSON."""
        return json_text(dataclasses.asdict(self), indent=1)

    def to_text(self) -> str:
        """Return a few lines for people."""
        lines = self.lines() + [f"warning: {line}" for line in self.warnings]
        if self.interrupted:
            lines.append("stopped with Ctrl-C; everything above is complete")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRow:
    """What became of one of several sources.

    Attributes:
        name: Tells it from the others, in names of files too.
        frames: Frames that came out.
        dropped: Frames that a newer one replaced (live sources).
        facts: What was seen in it.
        outputs: What was written.
        warnings: What went wrong with it.
    """

    name: str
    frames: int = 0
    dropped: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def line(self, seconds: float) -> str:
        """Return it as one line, for a run of so many seconds."""
        rate = self.frames / seconds if seconds else 0.0
        seen = "".join(f", {name.replace('_', ' ')} {v:.4g}" for name, v in self.facts.items())
        return f"  {self.name}: {self.frames} frames{seen}, {rate:.1f}/s, {self.dropped} dropped"


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameSummary(Summary):
    """What a run over frames did.

    Attributes:
        backend: One line about the session.
        frames: Frames that came out.
        dropped: Frames that a newer one replaced (live sources).
        seconds: From the first frame in to the last frame out.
        first_ms: From the start of the app to the first frame out.
        stages: Name, p50 and p90 in milliseconds, of each stage.
        sources: Each of several; none where there was one.
    """

    backend: str
    frames: int
    dropped: int
    seconds: float
    first_ms: float
    stages: tuple[tuple[str, float, float], ...]
    sources: tuple[SourceRow, ...] = ()

    def found(self) -> str:
        """Return what was seen, e.g. ``, 3 people``."""
        return ""

    def lines(self) -> list[str]:
        """Return rate, times and files."""
        rate = self.frames / self.seconds if self.seconds else 0.0
        return [
            f"{self.frames} frames{self.found()}, {rate:.1f} frames/s, "
            f"{self.dropped} dropped, first frame after {self.first_ms / 1000:.2f} s",
            *(row.line(self.seconds) for row in self.sources),
            times_line(self.stages),
            *(f"wrote {name}" for name in self.outputs),
        ]


def counts_line(title: str, counts: Mapping[str, float]) -> list[str]:
    """Return what was counted as one line, none where nothing was."""
    told = ", ".join(f"{name} {value:g}" for name, value in counts.items())
    return [f"{title}: {told}"] if told else []


def times_line(stages: Sequence[tuple[str, float, float]]) -> str:
    """Return the median and the 90th percentile of each stage."""
    return "p50/p90 ms: " + "  ".join(f"{name} {p50:.1f}/{p90:.1f}" for name, p50, p90 in stages)
