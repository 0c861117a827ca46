"""Default tolerances of `check`, as data: one frozen row per task and precision.

A limit may be tightened or widened for one run (`override`), never edited to make a run pass; the
report prints the limit that was used beside the measured value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
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


# Fewer confident joints than this say nothing about a percentile, so the check refuses to pass.
_ENOUGH_JOINTS = Limit("judged_joints", 10, "at least")

# Pixels of the network's input (192 x 256), over joints whose reference score is confident.
POSE_PIXELS: Mapping[str, tuple[Limit, ...]] = MappingProxyType(
    {
        "fp32": (Limit("max_px", 0.01), _ENOUGH_JOINTS),
        "fp16": (Limit("mean_px", 0.1), Limit("p99_px", 0.5), _ENOUGH_JOINTS),
        "int8": (Limit("mean_px", 0.5), _ENOUGH_JOINTS),
    }
)

# An untrained network has flat heatmaps whose arg-max means nothing: the maps are judged instead,
# by the largest (fp32) and the root mean square difference as shares of the reference's range.
POSE_HEATMAPS: Mapping[str, tuple[Limit, ...]] = MappingProxyType(
    {
        "fp32": (Limit("heatmap_max_relative", 1e-4),),
        "fp16": (Limit("heatmap_rms_relative", 1e-2),),
        "int8": (Limit("heatmap_rms_relative", 1e-1),),
    }
)

# Share of pixels that keep their class.
SEGMENTATION_PIXELS: Mapping[str, tuple[Limit, ...]] = MappingProxyType(
    {
        "fp32": (Limit("pixels_equal", 0.9999, "at least"),),
        "fp16": (Limit("pixels_equal", 0.995, "at least"),),
        "int8": (Limit("pixels_equal", 0.985, "at least"),),
    }
)

# With random weights the best class is often a near tie: how many pixels change then tells more
# about the dice than about the format, so int8 is judged by logits, as shares of their range.
SEGMENTATION_LOGITS: Mapping[str, tuple[Limit, ...]] = MappingProxyType(
    {
        "fp32": (Limit("logit_max_relative", 1e-4), *SEGMENTATION_PIXELS["fp32"]),
        "fp16": (Limit("logit_rms_relative", 1e-2), *SEGMENTATION_PIXELS["fp16"]),
        "int8": (Limit("logit_rms_relative", 1e-1),),
    }
)


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
