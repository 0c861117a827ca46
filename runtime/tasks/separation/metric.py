"""Judge a separator's graphs, in decibels: how far is the voice off, and what would that cost?

fp32 is held to the signal-to-noise ratio 10 log10(|reference|^2 / |difference|^2). In lower
precisions the loss of SI-SDR (Le Roux et al., arXiv 1811.02508) counts. No clean voice lies beside
these inputs, so the loss is computed for a separator whose voice is 16 dB clean, about the best
published today, and a difference that has nothing to do with what is left of the other voices:

    loss = 10 log10(1 + 10^((16 - snr) / 10)).

0.1 dB is an SNR of 32.3 dB, 0.3 dB one of 27.5 dB. Lip features are judged by the SNR over frames
near which no code differs, and by the share of equal codes. The worst window counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from prunus.runtime.card.card import ModelCard
from prunus.runtime.tasks.limits import Limit
from prunus.runtime.tasks.metrics import Array, Measurement, Outputs
from prunus.runtime.tasks.separation.card import SeparatorPostprocess

TYPICAL_SI_SDR_DB = 16.0
VOICE, LIPS, CODES = "voice", "lips", "codes"
_SNR, _LOSS, _LIPS, _EQUAL = "snr_db", "si_sdr_loss_db", "lips_snr_db", "codes_equal_percent"
_WORST = "worst_codes_equal_percent"
_AROUND = 1  # frames to each side that a code reaches, by the convolution behind the quantiser

_VOICE: Mapping[str, tuple[Limit, ...]] = MappingProxyType(
    {
        "fp32": (Limit(_SNR, 90.0, "at least"),),
        "fp16": (Limit(_LOSS, 0.1),),
        "int8": (Limit(_LOSS, 0.3),),
    }
)
_FEATURES: Mapping[str, tuple[Limit, ...]] = MappingProxyType(
    {
        "fp32": (
            Limit(_EQUAL, 100.0, "at least"),
            Limit(_WORST, 100.0, "at least"),
            Limit(_LIPS, 90.0, "at least"),
        ),
        "fp16": (
            Limit(_EQUAL, 99.0, "at least"),
            Limit(_WORST, 50.0, "at least"),
            Limit(_LIPS, 40.0, "at least"),
        ),
        "int8": (
            Limit(_EQUAL, 99.0, "at least"),
            Limit(_WORST, 50.0, "at least"),
            Limit(_LIPS, 30.0, "at least"),
        ),
    }
)


class SeparationMetric:
    """SNR and expected loss of SI-SDR of a voice; codes and features of lips."""

    def measure(self, reference: Outputs, suspect: Outputs, card: ModelCard) -> Measurement:
        """Measure ``voice`` (N, L), or ``lips`` (N, V, F) and ``codes`` (N, F)."""
        if VOICE in reference:
            snr = [
                snr_db(expected, got)
                for expected, got in zip(reference[VOICE], suspect[VOICE], strict=True)
            ]
            worst = min(snr)
            note = (
                f"Worst of {len(snr)} windows: {worst:.1f} dB; SI-SDR loss is for a voice that is "
                f"{TYPICAL_SI_SDR_DB:g} dB clean."
            )
            return Measurement({_SNR: worst, _LOSS: si_sdr_loss_db(worst)}, (note,))
        equal = suspect[CODES] == reference[CODES]
        judged = _untouched(equal)
        snr = [
            snr_db(reference[LIPS][k][:, frames], suspect[LIPS][k][:, frames])
            for k, frames in enumerate(judged)
            if frames.any()
        ]
        values = {
            _EQUAL: 100.0 * float(equal.mean()),
            _WORST: 100.0 * float(equal.mean(axis=1).min()),
            _LIPS: float(np.min(snr)) if snr else math.nan,
        }
        count = int(judged.sum())
        note = f"{int(equal.sum())} of {equal.size} codes equal; features of {count} judged."
        return Measurement(values, (note,))

    def limits(self, card: ModelCard, precision: str) -> tuple[Limit, ...]:
        """Return the budget of the graph that the card describes."""
        post = card.postprocess
        lips = isinstance(post, SeparatorPostprocess) and post.part == "lips"
        return (_FEATURES if lips else _VOICE)[precision]


def snr_db(expected: Array, got: Array) -> float:
    """Return 10 log10(|expected|^2 / |got - expected|^2); inf when equal, NaN of nothing."""
    if not expected.size:
        return math.nan
    wide = expected.astype(np.float64)
    noise = float(np.square(got.astype(np.float64) - wide).sum())
    power = float(np.square(wide).sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(power / noise) if power > 0 else -math.inf


def si_sdr_loss_db(snr: float, si_sdr: float = TYPICAL_SI_SDR_DB) -> float:
    """Return how many dB of SI-SDR an unrelated difference of that SNR costs."""
    if math.isnan(snr) or snr == math.inf:
        return 0.0 if snr == math.inf else math.nan
    return 10 * math.log10(1 + 10 ** min((si_sdr - snr) / 10, 300.0))


def _untouched(equal: Array) -> Array:
    """Return (N, F) bool: no code within reach of the frame differs."""
    differs = ~equal
    near = differs.copy()
    for step in range(1, _AROUND + 1):
        near[:, step:] |= differs[:, :-step]
        near[:, :-step] |= differs[:, step:]
    clean: Array = ~near
    return clean
