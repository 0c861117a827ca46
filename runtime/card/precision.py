"""What a card says about number formats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prunus.runtime.card.reading import Count

Precision = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True, slots=True)
class PrecisionSpec:
    """Number formats inside the graph.

    Attributes:
        precision: The one asked for.
        kept_higher: Parts that stay in float32 (or half, for int8).
        quantiser: Tool and scheme, empty without quantisation.
        calibration_sha256: Hash of the calibration data, empty without.
        calibration_samples: How many samples were used.
        also_within_budget: Lower arithmetic of a back end (``bf16``) that was measured on real
            inputs and stayed within the error budget of the task; `auto` may then use it.
    """

    precision: Precision = "fp32"
    kept_higher: tuple[str, ...] = ()
    quantiser: str = ""
    calibration_sha256: str = ""
    calibration_samples: Count = 0
    also_within_budget: tuple[Literal["bf16"], ...] = ()
