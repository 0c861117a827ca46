"""How late sound comes out of a live codec or voice picker: clicks go in, and are found again.

Between two ends in memory, or on a sound server between the monitors of two null sinks: clicks are
played to the one that the app records, and the app plays to the other. What counts is when a click
was in the first and in the second, on one clock, with all that lies between: devices, program,
rings.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from prunus.apps.bench.clicks import HINT, clicks, delays
from prunus.apps.bench.loopback import Loopback, Track
from prunus.apps.bench.null_sinks import run_between
from prunus.apps.common.model_files import separator_parts
from prunus.runtime.errors import CheckFailedError, UsageError

if TYPE_CHECKING:
    from prunus.apps.codec.live import CodecRun
    from prunus.apps.common.options import BackendChoice
    from prunus.apps.separation.summary import SeparationSummary

_ANY_HZ = 48_000  # places of clicks are seconds
_FACE = "synthetic:640x480@25"  # a camera before the bundled portrait


@dataclass(frozen=True, slots=True)
class SoundDelay:
    """What one run of an app has measured.

    Attributes:
        model: What ran.
        through: Where the sound went: ``memory``, or the null sinks.
        clicks: How many were said.
        missed: How many of them were not heard again.
        p50_ms: Median from microphone to loudspeaker.
        p99_ms: 99th percentile.
        declared_ms: What the app says of itself.
        devices: What it counted.
        delays_ms: Of each click that was heard.
    """

    model: str
    through: str
    clicks: int
    missed: int
    p50_ms: float
    p99_ms: float
    declared_ms: float
    devices: dict[str, float]
    delays_ms: tuple[float, ...] = field(repr=False)

    def to_text(self) -> str:
        """Return two lines."""
        counts = ", ".join(f"{name} {value:g}" for name, value in self.devices.items())
        return (
            f"{self.model}, {self.through}: microphone to loudspeaker p50/p99 "
            f"{self.p50_ms:.0f}/{self.p99_ms:.0f} ms; declared {self.declared_ms:.0f} ms, median "
            f"{self.p50_ms - self.declared_ms:+.0f} ms; {self.clicks - self.missed} of "
            f"{self.clicks} clicks heard\n  {counts}"
        )


def measure_delay(
    model: str, compute: BackendChoice, seconds: float, through: str = ""
) -> SoundDelay:
    """Run a codec or a separator live between two ends, and measure.

    A separator is shown the bundled portrait, and its gate is open: nobody speaks the clicks.

    Args:
        model: Name or files of a codec or of a separator.
        compute: Where it runs.
        seconds: Length of the sound.
        through: Two null sinks of a sound server, ``HOLE:VOICE``; empty: ends in memory.

    Raises:
        CheckFailedError: too little was heard.
        UsageError: a separator and a sound server.
        HostError: there is no sound server, or no such sinks.
    """
    places, separates = clicks(seconds, _ANY_HZ)[1], separator_parts(model) is not None
    if through and separates:
        raise UsageError(
            f"Got --through {through} for {model}, which separates.",
            "Between null sinks codecs are measured; leave it out.",
        )
    if through:
        said, heard, told = run_between(model, compute, seconds, through)
    else:
        said, heard, told = _in_memory(model, compute, seconds, separates)
    found = delays(said, heard, places)
    good = found[np.isfinite(found)] * 1000.0
    if len(good) < max(3, len(places) // 2):
        raise CheckFailedError(
            f"{len(good)} of {len(places)} clicks were heard: too few to measure.", HINT
        )
    return SoundDelay(
        model=told["model"], through=through or "memory", clicks=len(places),
        missed=len(places) - len(good), p50_ms=float(np.median(good)),
        p99_ms=float(np.percentile(good, 99)), declared_ms=told["declared_ms"],
        devices=told["devices"], delays_ms=tuple(round(float(d), 1) for d in good),
    )  # fmt: skip


def _in_memory(
    model: str, compute: BackendChoice, seconds: float, separates: bool
) -> tuple[Track, Track, dict[str, Any]]:
    run: SeparationSummary | CodecRun
    with closing(Loopback(lambda rate: clicks(seconds, rate)[0])) as loop:
        if separates:
            from prunus.apps.separation.app import run_separation
            from prunus.apps.separation.options import SeparationOptions

            shown = SeparationOptions(
                f"{_FACE}+{loop.uri}", (loop.uri,), model=model, gate=False, compute=compute
            )
            run = run_separation(shown, quiet=True)
        else:
            from prunus.apps.codec.live import run_codec
            from prunus.apps.codec.options import CodecOptions

            run = run_codec(CodecOptions(loop.uri, (loop.uri,), model, compute=compute), quiet=True)
    told = {"model": run.model, "declared_ms": run.declared_ms, "devices": run.devices}
    return loop.said, loop.heard, told
