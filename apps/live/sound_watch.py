"""What the devices of a live run count: told in its summary, and in a line a second of its log."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from prunus.apps.live.line_log import LineLog
from prunus.runtime.errors import UsageError

_EVERY_SECONDS = 1.0
_DELAYS = ("microphone_device_ms", "speaker_waits_ms", "speaker_device_ms")


class SoundWatch:
    """Gathers the counts of sound sources and sinks: of those that have `counts`.

    A line of the log has the seconds of sound so far and all counts. There is one a second, one for
    each moment in which sound was lost or missing, and one at the end.

    Args:
        log: File of JSON lines, None for none.
        head: Its first line: what ran.
        stack: Owns the log.
        clock: Seconds.

    Raises:
        UsageError: the log is no ``.jsonl`` file.
        PrunusError: it cannot be written.
    """

    def __init__(
        self,
        log: Path | None,
        head: Mapping[str, Any],
        stack: ExitStack,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ends: list[object] = []
        self._clock, self._due, self._faults = clock, 0.0, 0.0
        if log is not None and log.suffix.lower() not in (".jsonl", ""):
            raise UsageError(f"Got --log {log}; expected a .jsonl file.", "Example: --log a.jsonl")
        self._log = LineLog(log, head, stack)

    def counts(self) -> dict[str, float]:
        """Return what all ends have counted by now."""
        found: dict[str, float] = {}
        for end in self.ends:
            found |= getattr(end, "counts", dict)()
        return found

    def declared_ms(self, algorithm_s: float) -> float:
        """Return the delay from microphone to loudspeaker: of the algorithm, rings and devices."""
        counts = self.counts()
        return round(1000.0 * algorithm_s + sum(counts.get(name, 0.0) for name in _DELAYS), 1)

    def tell(self, seconds: float, *, last: bool = False) -> None:
        """Log what was counted, if it is time.

        Args:
            seconds: Length of the sound so far.
            last: Whether it is the end.
        """
        if not self._log.there:
            return
        counts, now = self.counts(), self._clock()
        faults = sum(v for name, v in counts.items() if name.endswith("flows"))
        if last or now >= self._due or faults != self._faults:
            self._due, self._faults = now + _EVERY_SECONDS, faults
            self._log.add(lambda: {"seconds": round(seconds, 3), **counts})

    def finish(self) -> tuple[tuple[str, ...], list[str]]:
        """Complete the log; return its name, where there is a whole one, and why there is not."""
        self._log.finish()
        return self._log.told()
