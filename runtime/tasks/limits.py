"""Limits of `check`, as data: each metric has a table of them per precision.

A limit may be tightened or widened for one run (`override`), never edited to make a run pass; the
report prints the limit that was used beside the measured value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from prunus.runtime.errors import UsageError, nearest


@dataclass(frozen=True, slots=True)
class Limit:
    """One line of a budget.

    Attributes:
        quantity: Name of the measured quantity, e.g. ``p99_px``.
        value: The bound, in the unit that the quantity's name ends with.
        kind: Whether the measured value must stay below or above it.
    """

    quantity: str
    value: float
    kind: Literal["at most", "at least"] = "at most"

    def holds(self, measured: float) -> bool:
        """Return whether the value keeps the limit; NaN never does."""
        if math.isnan(measured):
            return False
        return measured <= self.value if self.kind == "at most" else measured >= self.value

    def describe(self) -> str:
        """Return e.g. ``<= 0.5``."""
        return f"{'<=' if self.kind == 'at most' else '>='} {self.value:g}"


def override(limits: tuple[Limit, ...], values: Mapping[str, float] | None) -> tuple[Limit, ...]:
    """Return the limits with the values of some quantities replaced.

    Args:
        limits: The default budget.
        values: Quantity -> new bound; None keeps all.

    Raises:
        UsageError: a quantity is not part of this budget.
    """
    if not values:
        return limits
    known = [limit.quantity for limit in limits]
    for quantity in values:
        if quantity not in known:
            raise UsageError(
                f"No limit on '{quantity}' applies here{nearest(quantity, known)}.",
                f"This budget has: {', '.join(known)}.",
            )
    return tuple(replace(m, value=float(values.get(m.quantity, m.value))) for m in limits)
