"""Judge two sets of outputs in the units of the task, next to the raw and the relative difference.

Element-wise differences of a pruned network mislead: two tokens whose scores nearly tie may swap
places between back ends without moving a joint. What counts is how far the answer moves, so each
task brings a `TaskMetric`; raw and relative differences are reported beside it, not judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from prunus.runtime.card.card import ModelCard
from prunus.runtime.errors import CheckFailedError
from prunus.runtime.tasks.limits import Limit
from prunus.runtime.tasks.registry import task_named

Array = npt.NDArray[Any]
Outputs = Mapping[str, Array]
_DRAWS = 4
_QUIET_DB = 30.0  # decibels below the mean power of all samples


@dataclass(frozen=True, slots=True)
class Difference:
    """Raw difference of one output.

    Attributes:
        output: Name of the output.
        maximum: Largest absolute difference, in the output's own unit.
        mean: Mean absolute difference.
        relative: `maximum` as a share of the reference's range.
    """

    output: str
    maximum: float
    mean: float
    relative: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a task metric found.

    Attributes:
        values: Quantity -> value; the unit is the end of the quantity's name.
        notes: Sentences for the report: what was judged, where the worst case is.
    """

    values: Mapping[str, float]
    notes: tuple[str, ...]


class TaskMetric(Protocol):
    """How one task compares a suspect with its reference."""

    def measure(self, reference: Outputs, suspect: Outputs, card: ModelCard) -> Measurement:
        """Measure the effect; arrays are stacked over all samples along axis 0."""

    def limits(self, card: ModelCard, precision: str) -> tuple[Limit, ...]:
        """Return the budget for a suspect that computes in `precision`."""


def differences(reference: Outputs, suspect: Outputs) -> tuple[Difference, ...]:
    """Return raw and relative differences of every output, in the reference's order.

    Args:
        reference: Output name -> (N, ...) array.
        suspect: The same names and shapes.

    Raises:
        CheckFailedError: names or shapes differ.
    """
    if missing := [name for name in reference if name not in suspect]:
        raise CheckFailedError(
            f"The suspect has no output {missing}; it has {sorted(suspect)}.",
            "Export both with the same options (e.g. --heatmaps).",
        )
    found = []
    for name, expected in reference.items():
        got = suspect[name]
        if got.shape != expected.shape:
            raise CheckFailedError(
                f"Output '{name}' has shape {got.shape}; the reference has {expected.shape}.",
                "Compare files of the same model, joints and options.",
            )
        gap = np.abs(got.astype(np.float64) - expected.astype(np.float64))
        found.append(Difference(name, peak(gap), float(gap.mean()), peak(gap) / span(expected)))
    return tuple(found)


def span(values: Array) -> float:
    """Return the range of the finite values of an array, at least a tiny positive number.

    A constant array has no range; its magnitude stands in, so that a relative error stays defined.
    """
    finite = values[np.isfinite(values)].astype(np.float64)
    if not finite.size:
        return 1.0
    width = float(finite.max() - finite.min())
    return max(width, 1e-6 * float(np.abs(finite).max()), 1e-30)


def peak(gap: Array) -> float:
    """Return the maximum; NaN stays NaN, so that a poisoned output can never look small."""
    return float(gap.max()) if gap.size else 0.0


def relative_rms(expected: Array, got: Array) -> float:
    """Return the root mean square difference of the worst sample, as a share of the reference.

    The share is of the sample's own values, or of all samples' where those are larger. It sees what
    a comparison of ranks or of the best class does not: numbers that are all halved differ by 0.5,
    also where one sample of many is. A reference of zeros has no scale; then any difference at all
    is infinite.

    Args:
        expected: (N, ...) samples.
        got: The same shape.
    """
    gap, power = noise_and_power(expected, got, 0.0)
    if not gap.any():
        return 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(gap == 0.0, 0.0, np.sqrt(gap / power))
    return float(shares.max())


def worst_snr_db(expected: Array, got: Array, quiet_db: float = _QUIET_DB) -> float:
    """Return the signal-to-noise ratio of the worst sample, in decibels.

    Args:
        expected: (N, ...) samples.
        got: The same shape.
        quiet_db: No sample counts as quieter than this below the mean of all.

    Returns:
        300 where all are equal, NaN where either is not finite, -300 beside a silent reference.
    """
    noise, power = noise_and_power(expected, got, quiet_db)
    if not (np.isfinite(noise).all() and np.isfinite(power).all()):
        return float("nan")
    if not noise.any():
        return 300.0
    ratios = np.full(len(noise), 300.0)
    there = noise > 0.0
    ratios[there] = 10.0 * np.log10(np.maximum(power[there], 1e-30 * noise[there]) / noise[there])
    return float(ratios.min())


def noise_and_power(
    expected: Array, got: Array, quiet_db: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return mean squares of difference and reference of each sample, (N,) float64 both.

    A sample that is far quieter than the others is measured by what they are: rounding does not
    get smaller with it. None counts as quieter than `quiet_db` below their mean.
    """
    if not expected.size:
        return np.zeros(0), np.zeros(0)
    wide = expected.astype(np.float64).reshape(len(expected), -1)
    gap = got.astype(np.float64).reshape(len(got), -1) - wide
    noise, power = np.square(gap).mean(axis=1), np.square(wide).mean(axis=1)
    return noise, np.maximum(power, power.mean() * 10 ** (-quiet_db / 10))


def non_finite(outputs: Outputs, owner: str) -> tuple[str, ...]:
    """Return one sentence per output that holds NaN or Inf, naming the first sample.

    Args:
        outputs: Output name -> (N, ...) array.
        owner: Name of the runner, for the sentence.
    """
    found = []
    for name, values in outputs.items():
        if not np.issubdtype(values.dtype, np.floating):
            continue
        bad = ~np.isfinite(values)
        if bad.any():
            kinds = f"{int(np.isnan(values).sum())} NaN and {int(np.isinf(values).sum())} Inf"
            first = int(np.argwhere(bad)[0][0])
            found.append(
                f"{owner}: output '{name}' holds {kinds} in {values.size} values, "
                f"first in sample {first}."
            )
    return tuple(found)


def spread(
    reference: Outputs, suspect: Outputs, card: ModelCard, quantities: Sequence[str]
) -> tuple[str, ...]:
    """Return a sentence on how far the result depends on which samples were drawn.

    The samples are cut into disjoint draws of neighbours, each judged alone: a mean over 64 crops
    of one clip may well be twice that over 64 others.

    Args:
        reference: Output name -> (N, ...) array.
        suspect: The same names and shapes.
        card: Of the file.
        quantities: What is told, of those that are measured.
    """
    count = min((len(values) for values in reference.values()), default=0)
    draws = min(_DRAWS, count // 2)
    if draws < 2:
        return (f"{count} samples are too few to tell how far the result depends on the draw.",)
    parts = np.array_split(np.arange(count), draws)
    metric = metric_for(card)
    found = [
        metric.measure(
            {n: v[part] for n, v in reference.items()},
            {n: v[part] for n, v in suspect.items()},
            card,
        ).values
        for part in parts
    ]
    ranges = [
        f"{name} {min(row[name] for row in found):.3g} to {max(row[name] for row in found):.3g}"
        for name in quantities
        if all(name in row for row in found)
    ]
    size = f"{min(map(len, parts))}" + ("" if count % draws == 0 else f"-{max(map(len, parts))}")
    return (f"In {draws} disjoint draws of {size} samples: {', '.join(ranges)}.",)


def metric_for(card: ModelCard) -> TaskMetric:
    """Return the metric of the card's task; raises ArtifactError when it has none."""
    return task_named(card.task).judge()
