"""What a run of the voice picker did, for people and for programs."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SeparationSummary:
    """What a run did.

    Attributes:
        model: Short name from the card.
        backend: One line about the session.
        faces: Number -> seconds in which the face was seen.
        chosen: Number of the face that was heard last.
        seconds: Sound that came in.
        delay_seconds: By which the voice lags behind the sound when live.
        real_time_factor: Time taken over length of the sound; for live sources the share of the
            time in which the slowest part was busy. Above 1 cannot be live.
        dropped_seconds: Sound of the microphone that nobody had time for.
        first_ms: From the start to the first moment out.
        stages: Name, p50 and p90 in milliseconds, of each stage.
        cpu_seconds: CPU time by stage, see `StageClocks`; without opening models and inputs.
        outputs: What was written.
        notes: What was odd about the input, or went wrong without stopping the run.
        interrupted: Whether Ctrl-C ended it.
    """

    model: str
    backend: str
    faces: dict[int, float]
    chosen: int
    seconds: float
    delay_seconds: float
    real_time_factor: float
    dropped_seconds: float
    first_ms: float
    stages: tuple[tuple[str, float, float], ...]
    cpu_seconds: dict[str, float]
    outputs: tuple[str, ...]
    notes: tuple[str, ...]
    interrupted: bool

    @property
    def cpu_factor(self) -> float:
        """CPU time of all stages over the length of the sound: what one core would need."""
        return sum(self.cpu_seconds.values()) / max(self.seconds, 1e-6)

    def to_json(self) -> str:
        """Return sorted, indented JSON."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, indent=1)

    def to_text(self) -> str:
        """Return a few lines for people."""
        times = "  ".join(f"{name} {p50:.1f}/{p90:.1f}" for name, p50, p90 in self.stages)
        length = max(self.seconds, 1e-6)
        shares = ", ".join(f"{name} {t / length:.2f}" for name, t in self.cpu_seconds.items())
        faces = ", ".join(f"{k} for {v:.1f} s" for k, v in self.faces.items()) or "none"
        lines = [
            f"{self.seconds:.2f} s of sound, voice of face {self.chosen}; faces seen: {faces}",
            f"real-time factor {self.real_time_factor:.2f}, delay {self.delay_seconds:.2f} s, "
            f"first moment after {self.first_ms / 1000:.2f} s",
            f"p50/p90 ms: {times}",
            f"CPU seconds per second of sound: {self.cpu_factor:.2f} ({shares})",
            *(f"wrote {name}" for name in self.outputs),
            *(f"note: {note}" for note in self.notes),
        ]
        if self.interrupted:
            lines.append("stopped with Ctrl-C; everything above is complete")
        return "\n".join(lines)
