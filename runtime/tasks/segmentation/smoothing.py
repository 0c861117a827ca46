"""Steady masks over time, at the network's own resolution.

Probabilities are averaged with the past, the less the more they change, so that edges stop
flickering and a moving person leaves no trail. Class numbers cannot be averaged: a pixel changes
its class once the new one was seen a few frames in a row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import UsageError

Floats = npt.NDArray[np.float32]
_SUDDEN = 0.5  # a probability that moves by this much within one frame is believed at once
_MOST = 255  # frames that are counted


class MaskSmoothing:
    """State of one stream.

    Args:
        strength: 0 (off) to below 1: share of the past in a probability that does not move.
        patience: Frames in a row that a new class must be seen, 1 (off) to 255.

    Raises:
        UsageError: a value out of range.
    """

    def __init__(self, strength: float = 0.6, patience: int = 2) -> None:
        if not 0 <= strength < 1 or not 1 <= patience <= _MOST:
            raise UsageError(
                f"Got the smoothing {strength} and {patience} frames; expected 0 <= strength < 1 "
                f"and 1 to {_MOST} frames."
            )
        self.strength, self.patience = strength, patience
        self._past: Floats | None = None
        self._shown: npt.NDArray[Any] | None = None
        self._candidate: npt.NDArray[Any] | None = None
        self._seen: npt.NDArray[np.uint8] | None = None

    def reset(self) -> None:
        """Forget the past: at a cut, or when another stream begins."""
        self._past = self._shown = self._candidate = self._seen = None

    def probability(self, now: Floats) -> Floats:
        """Return the steadied probabilities of a frame, (h, w) in 0..1."""
        past = self._past
        if past is None or past.shape != now.shape:
            self._past = now.copy()
            return now
        # weight of the past = strength * (1 - min(|now - past| / sudden, 1))
        weight = self.strength * (1 - np.minimum(np.abs(now - past) / _SUDDEN, 1))
        self._past = np.asarray(weight * past + (1 - weight) * now, np.float32)
        return self._past.copy()

    def classes(self, now: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the steadied class numbers of a frame, (h, w) of any integer type."""
        shown, candidate, seen = self._shown, self._candidate, self._seen
        if shown is None or candidate is None or seen is None or shown.shape != now.shape:
            self._shown, self._candidate = now.copy(), now.copy()
            self._seen = np.zeros(now.shape, np.uint8)
            return now
        seen = np.where(now == candidate, np.minimum(seen, _MOST - 1) + 1, 1).astype(np.uint8)
        settled = seen >= self.patience
        self._shown = np.where(settled, now, shown)
        self._candidate, self._seen = now.copy(), seen
        return self._shown.copy()
