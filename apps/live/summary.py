"""What the summaries of all live apps have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
class FrameSummary(Summary):
    """What a run over frames did.

    Attributes:
        backend: One line about the session.
        frames: Frames that came out.
        dropped: Frames that a newer one replaced (live sources).
        seconds: From the first frame in to the last frame out.
        first_ms: From the start of the app to the first frame out.
        stages: Name, p50 and p90 in milliseconds, of each stage.
    """

    backend: str
    frames: int
    dropped: int
    seconds: float
    first_ms: float
    stages: tuple[tuple[str, float, float], ...]

    def found(self) -> str:
        """Return what was seen, e.g. ``, 3 people``."""
        return ""

    def lines(self) -> list[str]:
        """Return rate, times and files."""
        rate = self.frames / self.seconds if self.seconds else 0.0
        return [
            f"{self.frames} frames{self.found()}, {rate:.1f} frames/s, "
            f"{self.dropped} dropped, first frame after {self.first_ms / 1000:.2f} s",
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
