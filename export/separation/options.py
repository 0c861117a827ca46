"""Options of the separator's export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prunus.export.common.options import CALIBRATION, OUTPUT, WeightOptions, small
from prunus.runtime.card.precision import Precision
from prunus.runtime.options import group, option

Part = Literal["lips", "voice"]
LIP_SECONDS = 1.4  # what is new since the last run, 0.52 s at most, and 11 frames to each side


@dataclass(frozen=True, slots=True)
class DolphinOptions:
    """Options of Dolphin."""

    variant: str = option("Size: base (published) or nano.", default="base", metavar="NAME")
    seconds: float = option("Length of a window, in steps of 0.04 s.", default=2.0, metavar="S")
    parts: tuple[Part, ...] = option(
        "Graph to write, repeatable; default: both.",
        default=(),
        metavar="NAME",
        flags=("--part",),
        formerly=("--parts",),
    )
    precision: Precision = option(
        "Number format; int8 is for the voice, the lips stay fp32.", default="fp32"
    )
    heat_radius: int | None = option(
        "Taps on each side of the filters that stand for heat diffusion; default: 32 (base), 16 "
        "(nano).",
        default=None,
    )
    token_step: int = option(
        "2: half the tokens of the global attention (approximation).", default=1
    )
    lip_seconds: float = option(
        "Length of a run of the lip graph: hop + 0.88 s or more.", default=LIP_SECONDS, metavar="S"
    )
    weights: WeightOptions = group(WeightOptions)
    calibration: Path | None = option(
        ".npz with mouth and mixture, or a recording, for int8 and for the comparison with "
        "PyTorch; default: synthetic.",
        **CALIBRATION,
    )
    rewrite: bool = option(
        "Lips and long filters as the layers are written: same numbers, slower.", default=True
    )
    small: bool = small()
    output: Path | None = option(
        "NAME of NAME-lips.onnx and NAME-voice.onnx; default: named after the options.", **OUTPUT
    )
