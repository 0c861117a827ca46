"""What wrong numbers look like: the pattern by which they differ often names the fault.

Each pattern is looked for in one output, sample by sample along axis 0, and along every other axis
(channels, joints, coordinates). They are tried in the order of `_PATTERNS`; none may fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from prunus.runtime.tasks.metrics import Array, Outputs, span

NOT_FINITE, DEAD, SWAPPED = "not-finite", "dead-channel", "swapped-channels"
SCALED, FORMAT, WRONG = "scaled-output", "number-format", "wrong-values"
_MOST = 256  # slices of an axis that are compared with one another
_ALIKE = 0.1  # difference that stays, as a share of what it was
_SAME = 1e-3  # of the range: a slice that is off by less is not looked at
_MOVES = 0.02  # of the range: what counts as a change, and the least that a live slice varies
_FEW = 16  # values below which a number format cannot be told


@dataclass(frozen=True, slots=True)
class Symptom:
    """A pattern that was seen.

    Attributes:
        verdict: Its name.
        detail: Where, in one sentence.
    """

    verdict: str
    detail: str


def find_symptom(expected: Outputs, got: Outputs) -> Symptom:
    """Return the first pattern that fits any output; `wrong-values` where none does.

    Args:
        expected: Output name -> (n, ...) array of the reference.
        got: The same of the device.
    """
    off = [
        name for name in expected
        if not np.array_equal(expected[name], got[name], equal_nan=expected[name].dtype.kind == "f")
    ]  # fmt: skip
    for pattern, verdict in _PATTERNS.items():
        for name in off:
            a, b = (x.astype(np.float64) for x in (expected[name], got[name]))
            if detail := pattern(a, b):
                return Symptom(verdict, f"output '{name}': {detail}")
    return format_of(expected, got) or Symptom(
        WRONG, f"output{'s' * (len(off) > 1)} {', '.join(off)}: no known pattern"
    )


def format_of(expected: Outputs, got: Outputs) -> Symptom | None:
    """Return a symptom where float32 outputs all lie on the grid of a coarser number format.

    An output whose reference lies on that grid as well tells nothing.
    """
    for name, values in got.items():
        believed = expected[name]
        if values.dtype != np.float32 or len(np.unique(values)) < _FEW:
            continue
        for word, on_grid in (("bfloat16", _is_bfloat16), ("float16", _is_float16)):
            if on_grid(values) and not on_grid(believed):
                return Symptom(FORMAT, f"output '{name}' holds nothing but {word} values")
    return None


def _is_bfloat16(values: Array) -> bool:
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return not (bits & 0xFFFF).any()


def _is_float16(values: Array) -> bool:
    with np.errstate(over="ignore"):
        return np.array_equal(values.astype(np.float16).astype(np.float32), values, equal_nan=True)


def _not_finite(expected: Array, got: Array) -> str:
    bad = ~np.isfinite(got) & np.isfinite(expected)
    if not bad.any():
        return ""
    first = ", ".join(map(str, np.argwhere(bad)[0]))
    return f"{int(bad.sum())} of {got.size} values are NaN or infinite, the first at [{first}]"


def _slices(values: Array) -> Iterator[tuple[int, Array]]:
    """Yield every axis but the first, with the values as (slices, rest), where they are few."""
    for axis in range(1, values.ndim):
        if 1 < values.shape[axis] <= _MOST:
            yield axis, np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)


def _dead(expected: Array, got: Array) -> str:
    for (axis, a), (_, b) in zip(_slices(expected), _slices(got), strict=True):
        dead = (np.ptp(b, axis=1) == 0) & (np.ptp(a, axis=1) > _MOVES * span(expected))
        if dead.any() and _near(a[~dead], b[~dead], span(expected)):
            return f"{_named(np.flatnonzero(dead), axis)} constant {b[dead][0, 0]:g} in all samples"
    if np.ptp(got) == 0 and np.ptp(expected) > 0:
        return f"all values are {got.flat[0]:g}"
    return ""


def _near(a: Array, b: Array, width: float) -> bool:
    """Tell whether there are values, and whether they are the same but for a little."""
    return a.size > 0 and float(np.sqrt(np.square(a - b).mean())) <= _MOVES * width


def _swapped(expected: Array, got: Array) -> str:
    for (axis, a), (_, b) in zip(_slices(expected), _slices(got), strict=True):
        off = np.flatnonzero(np.abs(a - b).max(axis=1) > _SAME * span(expected))
        if len(off) < 2:
            continue
        gaps = np.array([np.sqrt(np.square(a[off] - b[k]).mean(axis=1)) for k in off])
        source = gaps.argmin(axis=1)
        rows = np.arange(len(off))
        moved = (gaps[rows, source] <= _ALIKE * gaps[rows, rows]).all()
        if moved and len(set(source)) == len(off):
            pairs = [f"{k} holds {j}" for k, j in zip(off, off[source], strict=True)]
            return f"axis {axis}: {', '.join(pairs[:4])}{', ...' if len(off) > 4 else ''}"
    return ""


def _scaled(expected: Array, got: Array) -> str:
    factor = _factor(expected.ravel(), got.ravel())
    if factor is not None:
        return f"all values are {factor:.3g} times the reference's"
    for (axis, a), (_, b) in zip(_slices(expected), _slices(got), strict=True):
        off = np.flatnonzero(np.abs(a - b).max(axis=1) > _SAME * span(expected))
        if 0 < len(off) < len(a):
            factor = _factor(a[off].ravel(), b[off].ravel())
            if factor is not None:
                return f"{_named(off, axis)} {factor:.3g} times the reference's"
    return ""


def _factor(a: Array, b: Array) -> float | None:
    """Return the factor that explains nearly all of the difference, None where there is none."""
    power, gap = float(a @ a), float(np.square(b - a).sum())
    if not (power > 0 and gap > 0):
        return None
    factor = float(a @ b) / power
    rest = float(np.square(b - factor * a).sum())
    return factor if rest <= (_ALIKE / 5) ** 2 * gap and abs(factor) > 1e-9 else None


def _named(indices: Array, axis: int) -> str:
    shown = ", ".join(map(str, indices[:4])) + (", ..." if len(indices) > 4 else "")
    return f"{shown} on axis {axis} {'is' if len(indices) == 1 else 'are'}"


_PATTERNS: dict[Callable[[Array, Array], str], str] = {
    _not_finite: NOT_FINITE,
    _dead: DEAD,
    _swapped: SWAPPED,
    _scaled: SCALED,
}
