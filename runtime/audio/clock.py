"""The time of a camera on the clock of a microphone: two quartzes never agree for long.

Sound counts its own samples; pictures carry times of the host. When a block of sound arrives, host
time minus sound time is the offset between the clocks plus the delay of the delivery, which can be
late but never early. A low quantile over the last blocks therefore follows the offset as the clocks
drift apart (100 ppm are 0.36 s an hour) and ignores late deliveries.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from prunus.runtime.errors import UsageError

_QUANTILE = 0.1


class AudioClock:
    """Maps host times to seconds since the first sample.

    Args:
        sample_rate_hz: Nominal rate of the sound.
        blocks: How many deliveries are remembered.

    Example:
        >>> clock = AudioClock(16000)
        >>> clock.observe(100.5, 8000)  # half a second of sound was complete at 100.5 s
        >>> round(clock.seconds(101.0), 3)
        1.0
    """

    def __init__(self, sample_rate_hz: int, blocks: int = 256) -> None:
        if sample_rate_hz < 1 or blocks < 1:
            raise UsageError(f"Got a rate of {sample_rate_hz} Hz and {blocks} blocks.")
        self._rate = sample_rate_hz
        self._offsets: deque[float] = deque(maxlen=blocks)

    def observe(self, host_s: float, samples: int) -> None:
        """Note that the sound up to `samples` had been delivered at the host time `host_s`."""
        self._offsets.append(host_s - samples / self._rate)

    @property
    def offset_s(self) -> float | None:
        """Host time of the first sample as the latest blocks tell it; None before the first."""
        return float(np.quantile(self._offsets, _QUANTILE)) if self._offsets else None

    def seconds(self, host_s: float) -> float:
        """Return the time of a host moment on the clock of the sound; negative before its start.

        Raises:
            UsageError: no sound has been observed.
        """
        offset = self.offset_s
        if offset is None:
            raise UsageError("No sound has arrived yet; a picture has no place on its clock.")
        return host_s - offset
