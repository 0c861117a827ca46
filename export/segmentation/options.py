"""Options of the segmentation networks' exports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prunus.export.common.options import CALIBRATION, OUTPUT, PrecisionOptions, batch
from prunus.runtime.options import group, option

Fit = Literal["letterbox", "stretch", "ade20k", "cityscapes"]


@dataclass(frozen=True, slots=True)
class EdaformerOptions:
    """Options of EDAFormer."""

    variant: str | None = option(
        "Size: t or b; default: what the weights are, else t.", default=None, metavar="NAME"
    )
    isr: str = option(
        "Key pooling (inference spatial reduction): off, decoder, published, maximum, or digits: "
        "factors on encoder stages 1-4, then on the decoder at 1/8, 1/16, 1/32.",
        default="off",
        metavar="2211-222",
    )
    size: str = option("Input size.", default="512x512", metavar="HEIGHTxWIDTH")
    classes: int | None = option(
        "Number of classes; default: the weights', else 150.", default=None, minimum=1
    )
    checkpoint: str | None = option(
        "Weights file, person (shipped) or random; default: person, UNTRAINED random ones when a "
        "variant or classes are asked for.",
        default=None,
        metavar="FILE",
        formerly=("--weights",),
    )
    fit: Fit = option(
        "How a frame becomes an input; the last two are the published protocols.",
        default="letterbox",
    )
    logits: bool = option("Give logits at 1/8 instead of class numbers.", default=False)
    probability: bool = option(
        "Give the second class's probability, for soft edges; of two classes only.", default=False
    )
    batch: int = batch("Images")
    literal: bool = option("As published, without the exact rewrites.", default=False)
    full_argmax: bool = option(
        "Compare all classes at every pixel; else, of many classes, the best around it.",
        default=False,
    )
    drop_remainder: bool = option(
        "Accept sizes at which poolings lose the last keys.", default=False
    )
    seed: int = option("Seed of random weights.", default=0, minimum=0)
    format: PrecisionOptions = group(PrecisionOptions)
    calibration: Path | None = option(
        "Folder, picture, clip or array file, for int8 and for the comparison with PyTorch; "
        "default: bundled.",
        **CALIBRATION,
    )
    output: Path | None = option("The file; default: named after the options, here.", **OUTPUT)
