"""The pitches that a code can name: a logarithmic grid over speaking and shouting voices."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

PITCHES = 255  # with "no voice", 256 codes: 8 bits
LOWEST_HZ, HIGHEST_HZ = 55.0, 500.0


def pitch_hertz() -> npt.NDArray[np.float64]:
    """Return the (PITCHES,) frequencies in hertz; neighbours are 15 cents apart."""
    return LOWEST_HZ * (HIGHEST_HZ / LOWEST_HZ) ** (np.arange(PITCHES) / (PITCHES - 1))
