"""Options of the pose networks' exports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prunus.export.common.options import (
    CALIBRATION,
    OUTPUT,
    PrecisionOptions,
    TokenOptions,
    WeightOptions,
    batch,
    npu,
)
from prunus.runtime.options import group, option

Head = Literal["classic", "simple", "subpixel", "token", "regression"]


@dataclass(frozen=True, slots=True)
class PoseFileOptions:
    """What every pose network's file may be."""

    batch: int = batch("People (1, 2, 4 or 8)")
    heatmaps: bool = option("Give the heatmaps as a second output.", default=False)
    weights: WeightOptions = group(WeightOptions)
    format: PrecisionOptions = group(PrecisionOptions)
    calibration: Path | None = option(
        "Folder, .npz, picture or clip with people, for int8 and for the comparison with PyTorch; "
        "default: bundled.",
        **CALIBRATION,
    )
    output: Path | None = option("The file; default: named after the options, here.", **OUTPUT)


@dataclass(frozen=True, slots=True)
class EvitposeOptions:
    """Options of EViTPose."""

    variant: str = option(
        "Size: tiny, small, base; dino6, dino8 or dino12 (DINOv2's trunk).",
        default="tiny",
        metavar="NAME",
    )
    tokens: TokenOptions = group(TokenOptions)
    head: Head | None = option("Decoder; default: by size.", default=None)
    joints: int = option("Joints of the skeleton.", default=17, minimum=1, maximum=256)
    fill: Literal["carry", "zero", "mask"] = option(
        "What the decoder sees where a patch was dropped.", default="carry"
    )
    score: Literal["sum", "max", "strided", "pooled"] | None = option(
        "How patches are chosen: by the joints' attention, summed (the default) or its maximum; or "
        "the same of every picture, evenly spaced (strided, the default with --npu) or as means of "
        "cells (pooled: give counts of cells with --plan).", default=None,
    )  # fmt: skip
    npu: bool = npu()
    show_tokens: bool = option(
        "Give one more output per cut, for run pose --show-tokens: the token that stands for each "
        "patch, -1 where it is gone.", default=False,
    )  # fmt: skip
    file: PoseFileOptions = group(PoseFileOptions)


@dataclass(frozen=True, slots=True)
class UnitransposeOptions:
    """Options of UniTransPose.

    The skeleton is what the network knows (its joint tokens); the joints are what the file returns.
    """

    variant: str = option(
        "Size: tiny, tiny-light, small, base or base-deep.", default="tiny", metavar="NAME"
    )
    head: Literal["heatmap", "regression"] = option(
        "Decoder; regression gives coordinates, for speed.", default="heatmap"
    )
    skeleton: Literal["coco17", "unified23"] | None = option(
        "Joints that the network knows; default: coco17, or unified23 where --joints asks for "
        "joints that COCO lacks.",
        default=None,
    )
    joints: str | None = option(
        "Joints that come out: coco17, mpii16, ..., or names between commas; default: all.",
        default=None,
        metavar="NAMES",
    )
    file: PoseFileOptions = group(PoseFileOptions)
