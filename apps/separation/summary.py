"""What a run of the voice picker did, for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass

from prunus.apps.live.summary import Summary, counts_line, times_line


@dataclass(frozen=True, slots=True, kw_only=True)
class SeparationSummary(Summary):
    """What a run did.

    Attributes:
        backend: One line about the session.
        faces: Number -> seconds in which the face was seen.
        chosen: Number of the face that was heard last.
        seconds: Sound that came in.
        delay_seconds: By which the voice lags behind the sound when live.
        declared_ms: The same in milliseconds, with what waits for the speaker and devices keep.
        devices: As of the codec's run: what microphone and speaker lost, lacked and corrected.
        real_time_factor: Time taken over length of the sound; for live sources the share of the
            time in which the slowest part was busy. Above 1 cannot be live.
        dropped_seconds: Sound of the microphone that nobody had time for.
        first_ms: From the start to the first moment out.
        stages: Name, p50 and p90 in milliseconds, of each stage.
        cpu_seconds: CPU time by stage, see `StageClocks`; without opening models and inputs.
        notes: What was odd about the input.
    """

    backend: str
    faces: dict[int, float]
    chosen: int
    seconds: float
    delay_seconds: float
    declared_ms: float
    devices: dict[str, float]
    real_time_factor: float
    dropped_seconds: float
    first_ms: float
    stages: tuple[tuple[str, float, float], ...]
    cpu_seconds: dict[str, float]
    notes: tuple[str, ...]

    @property
    def cpu_factor(self) -> float:
        """CPU time of all stages over the length of the sound: what one core would need."""
        return sum(self.cpu_seconds.values()) / max(self.seconds, 1e-6)

    def lines(self) -> list[str]:
        """Return times, faces and files."""
        length = max(self.seconds, 1e-6)
        shares = ", ".join(f"{name} {t / length:.2f}" for name, t in self.cpu_seconds.items())
        faces = ", ".join(f"{k} for {v:.1f} s" for k, v in self.faces.items()) or "none"
        return [
            f"{self.seconds:.2f} s of sound, voice of face {self.chosen}; faces seen: {faces}",
            f"real-time factor {self.real_time_factor:.2f}, delay {self.delay_seconds:.2f} s "
            f"({self.declared_ms / 1000:.2f} s with devices), "
            f"first moment after {self.first_ms / 1000:.2f} s",
            *counts_line("devices", self.devices),
            times_line(self.stages),
            f"CPU seconds per second of sound: {self.cpu_factor:.2f} ({shares})",
            *(f"wrote {name}" for name in self.outputs),
            *(f"note: {note}" for note in self.notes),
        ]
