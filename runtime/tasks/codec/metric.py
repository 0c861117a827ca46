"""Judge a codec's graphs: are the codes the same, and how far is the sound off, in decibels?

A code that differs is another code: the share of equal ones counts. Sound and voice vectors are
judged by the signal-to-noise ratio 10 log10(|reference|^2 / |difference|^2); states of step graphs
as well, in lower precisions only so far that a broken one is found: what they lead to counts there.
The worst output and the worst sample count, so that a fault in one of many is not averaged away.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from prunus.runtime.card.card import ModelCard
from prunus.runtime.tasks.limits import Limit
from prunus.runtime.tasks.metrics import Measurement, Outputs, worst_snr_db

_STATE = "_next"
_CODES = "codes_equal_percent"
_WORST = "worst_codes_equal_percent"
_SOUND = "snr_db"
_STATES, _WORST_STATE = "state_snr_db", "worst_state_snr_db"
_QUANTITIES = (_CODES, _WORST, _SOUND, _STATES, _WORST_STATE)

# Lower precisions: 99 % of the codes of each output, and half of those of any sample, which a near
# tie does not cost but a fault does; sound well below what the codec itself loses (speech codecs
# at these rates reach 0 to 10 dB against the original). States likewise all together, and each
# sample's so far that a fault is found: pulses that a phase places are 88 dB apart in float32.
_LIMITS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        precision: MappingProxyType(dict(zip(_QUANTITIES, row, strict=True)))
        for precision, row in {
            "fp32": (100.0, 100.0, 90.0, 90.0, 60.0),
            "fp16": (99.0, 50.0, 40.0, 20.0, 10.0),
            "int8": (99.0, 50.0, 20.0, 8.0, 0.0),
        }.items()
    }
)


class CodecMetric:
    """Share of equal codes; signal-to-noise ratio of sound, voice and states."""

    def measure(self, reference: Outputs, suspect: Outputs, card: ModelCard) -> Measurement:
        """Measure; codes are int64, everything else floating point."""
        values: dict[str, float] = {}
        notes = []
        for name, expected in reference.items():
            got = suspect[name]
            if np.issubdtype(expected.dtype, np.integer):
                same = (got == expected).reshape(len(expected), -1)
                notes.append(f"{name}: {int(same.sum())} of {same.size} codes equal.")
                found = {_CODES: 100.0 * same.mean(), _WORST: 100.0 * same.mean(axis=1).min()}
            elif name.endswith(_STATE):
                # A state is no sound: what a quiet one does to the next step is small as well, and
                # in those of silence rounding is all there is.
                worst = worst_snr_db(expected, got, quiet_db=0.0)
                found = {_STATES: worst_snr_db(expected[None], got[None]), _WORST_STATE: worst}
            else:
                found = {_SOUND: worst_snr_db(expected, got)}
            for quantity, value in found.items():
                values[quantity] = float(np.minimum(values.get(quantity, math.inf), value))
        return Measurement(values, tuple(notes))

    def limits(self, card: ModelCard, precision: str) -> tuple[Limit, ...]:
        """Return the budget for the outputs that the card has."""
        present = set()
        for output in card.outputs:
            if output.dtype.startswith("int"):
                present |= {_CODES, _WORST}
            else:
                state = output.name.endswith(_STATE)
                present |= {_STATES, _WORST_STATE} if state else {_SOUND}
        table = _LIMITS[precision]
        return tuple(Limit(q, v, "at least") for q, v in table.items() if q in present)
