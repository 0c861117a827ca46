"""Judge a codec's graphs: are the codes the same, and how far is the sound off, in decibels?

A code that differs is another code: the share of equal ones counts. Sound and voice vectors are
judged by the signal-to-noise ratio 10 log10(|reference|^2 / |difference|^2); states of step graphs
as well, in lower precisions only so far that a broken one is found: what they lead to counts there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from prunus.runtime.card.card import ModelCard
from prunus.runtime.tasks.limits import Limit
from prunus.runtime.tasks.metrics import Array, Measurement, Outputs

_STATE = "_next"
_CODES = "codes_equal_percent"
_SOUND, _STATES = "snr_db", "state_snr_db"

# Lower precisions: 99 % of the codes; sound well below what the codec itself loses (speech codecs
# at these rates reach 0 to 10 dB against the original).
_LIMITS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "fp32": MappingProxyType({_CODES: 100.0, _SOUND: 90.0, _STATES: 90.0}),
        "fp16": MappingProxyType({_CODES: 99.0, _SOUND: 40.0, _STATES: 20.0}),
        "int8": MappingProxyType({_CODES: 99.0, _SOUND: 20.0, _STATES: 8.0}),
    }
)


class CodecMetric:
    """Share of equal codes; signal-to-noise ratio of sound, voice and states."""

    def measure(self, reference: Outputs, suspect: Outputs, card: ModelCard) -> Measurement:
        """Measure; codes are int64, everything else floating point."""
        equal, total = 0, 0
        values: dict[str, float] = {}
        notes = []
        for name, expected in reference.items():
            got = suspect[name]
            if np.issubdtype(expected.dtype, np.integer):
                same = int((got == expected).sum())
                equal, total = equal + same, total + expected.size
                notes.append(f"{name}: {same} of {expected.size} codes equal.")
            else:
                quantity = _STATES if name.endswith(_STATE) else _SOUND
                values[quantity] = min(values.get(quantity, math.inf), snr_db(expected, got))
        if total:
            values[_CODES] = 100.0 * equal / total
        return Measurement(values, tuple(notes))

    def limits(self, card: ModelCard, precision: str) -> tuple[Limit, ...]:
        """Return the budget for the outputs that the card has."""
        present = set()
        for output in card.outputs:
            if output.dtype.startswith("int"):
                present.add(_CODES)
            else:
                present.add(_STATES if output.name.endswith(_STATE) else _SOUND)
        table = _LIMITS[precision]
        return tuple(Limit(q, v, "at least") for q, v in table.items() if q in present)


def snr_db(expected: Array, got: Array) -> float:
    """Return the signal-to-noise ratio; 300 dB for equal arrays, NaN when either is not finite."""
    signal = expected.astype(np.float64)
    noise = float(((got.astype(np.float64) - signal) ** 2).sum())
    power = float((signal**2).sum())
    if not math.isfinite(noise) or not math.isfinite(power):
        return math.nan
    if noise == 0.0:
        return 300.0
    return 10.0 * math.log10(max(power, 1e-30) / noise)
