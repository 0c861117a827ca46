"""Judge any network: is each output the same, in direction, size and choice?

Nothing is known about what the tensors mean, so three things are measured for every output: the
cosine between the flattened samples and the root mean square difference as a share of the
reference's, both of the worst sample, and, for rows of floating-point scores (N, C), how often the
largest entry stays the same. Whole numbers and truth values must be equal, in the worst sample as
well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from prunus.runtime.card.card import ModelCard
from prunus.runtime.tasks.limits import Limit
from prunus.runtime.tasks.metrics import Array, Measurement, Outputs, relative_rms

_COSINE, _RELATIVE, _TOP1, _EQUAL = "cosine", "rms_relative", "top1_equal", "values_equal"
_WORST = "worst_values_equal"

# The fp32 row allows for rounding in networks of a hundred layers. How much half precision or int8
# may cost depends on a network that is not known here: the bounds find broken graphs, not lost
# points of accuracy; --budget narrows them.
LIMITS: Mapping[str, Mapping[str, Limit]] = MappingProxyType(
    {
        precision: MappingProxyType(
            {
                _COSINE: Limit(_COSINE, cosine, "at least"),
                _RELATIVE: Limit(_RELATIVE, relative),
                _TOP1: Limit(_TOP1, top1, "at least"),
                _EQUAL: Limit(_EQUAL, equal, "at least"),
                _WORST: Limit(_WORST, worst, "at least"),
            }
        )
        for precision, cosine, relative, top1, equal, worst in (
            ("fp32", 0.999999, 1e-3, 1.0, 1.0, 1.0),
            ("fp16", 0.999, 0.03, 0.99, 0.99, 0.5),
            ("int8", 0.98, 0.2, 0.95, 0.98, 0.5),
        )
    }
)


class GenericMetric:
    """Cosine, relative error and top-1 agreement of every output."""

    def measure(self, reference: Outputs, suspect: Outputs, card: ModelCard) -> Measurement:
        """Measure; arrays are stacked over all samples along axis 0, the worst output counts."""
        values: dict[str, float] = {}
        notes = []
        for name, expected in reference.items():
            found = _differences(expected, suspect[name])
            notes.append(f"{name}: " + ", ".join(f"{k} {v:.6g}" for k, v in found.items()) + ".")
            for quantity, value in found.items():
                worst = max if quantity == _RELATIVE else min
                values[quantity] = worst(values.get(quantity, value), value)
        return Measurement(values, tuple(notes))

    def limits(self, card: ModelCard, precision: str) -> tuple[Limit, ...]:
        """Return the limits of the quantities that the outputs of the card have."""
        present: set[str] = set()
        for output in card.outputs:
            floating = output.dtype.startswith("float")
            present |= {_COSINE, _RELATIVE} if floating else {_EQUAL, _WORST}
            if floating and len(output.shape) == 2 and output.shape[1] > 1:
                present.add(_TOP1)
        return tuple(limit for name, limit in LIMITS[precision].items() if name in present)


def _differences(expected: Array, got: Array) -> dict[str, float]:
    if expected.dtype.kind != "f":
        if not expected.size:
            return {_EQUAL: 1.0, _WORST: 1.0}
        same = (expected == got).reshape(len(expected), -1).mean(axis=1)
        return {_EQUAL: float(same.mean()), _WORST: float(same.min())}
    found = {_COSINE: worst_cosine(expected, got), _RELATIVE: relative_rms(expected, got)}
    if expected.ndim == 2 and expected.shape[1] > 1:
        found[_TOP1] = float((expected.argmax(1) == got.argmax(1)).mean())
    return found


def worst_cosine(expected: Array, got: Array) -> float:
    """Return the smallest cosine between samples (N, ...), see `cosines`; 1 for empty ones."""
    return float(cosines(expected, got).min(initial=1.0))


def cosines(expected: Array, got: Array) -> Array:
    """Return (N,) float64: cosines between samples (N, ...); equal ones have 1, zeros included."""
    rows = len(expected), math.prod(expected.shape[1:])  # -1 has no answer where there are none
    a, b = (values.reshape(rows).astype(np.float64) for values in (expected, got))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = np.where(norms > 0, (a * b).sum(1) / np.maximum(norms, 1e-300), 0.0)
    same: Array = np.where((a == b).all(1), 1.0, np.minimum(cosine, 1.0))
    return same
