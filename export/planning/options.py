"""Options of `prunus plan` and `prunus layers`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prunus.export.foreign.options import CutOptions, NetworkOptions
from prunus.runtime.options import option

_CALIBRATION = (
    "Real inputs: an .npz with an array of samples per input, and those that --score compares "
    "with; default: noise, which tells little."
)
_SCORE = (
    "The accuracy: function(outputs, references) -> number, higher is better, of arrays by name; "
    "default: the cosine to the dense outputs, which is fidelity and not accuracy."
)
_SAMPLES = "Samples to judge on at most."


@dataclass(frozen=True, slots=True)
class LayersOptions(NetworkOptions):
    """What `prunus layers` does.

    \b
    Examples:
      prunus layers nets.py:build --input x:1x3x224x224 --calibration val.npz --score nets.py:top1
    """

    lose: float = option(
        "Highest loss of accuracy against dense, in its own unit, for a block to be proposed.",
        default=0.01, minimum=0,
    )  # fmt: skip
    calibration: Path | None = option(_CALIBRATION, default=None, metavar="FILE")
    score: str | None = option(_SCORE, default=None, metavar="MODULE:FUNCTION")
    samples: int = option(_SAMPLES, default=64, minimum=1)
    output: Path | None = option(
        "Everything that was found, as JSON.", default=None, flags=("--output", "-o"),
        metavar="PATH",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PlanOptions(CutOptions):
    """What `prunus plan` does.

    \b
    Examples:
      prunus plan nets.py:build --input x:1x3x224x224 --budget 0.6x -o plan.json --plot plan.png
      prunus plan nets.py:build --input x:1x3x224x224 --calibration val.npz --score nets.py:top1
      prunus plan nets.py:build --input x:1x3x224x224 --method tome --block 3 --block 3/6 \\
        --backend openvino-bf16 --budget 12ms --rival nets.py:build_168
    """

    method: tuple[str, ...] = option(
        "A method to try, e.g. evit or evit(merge=drop); repeatable.", default=("evit", "tome"),
        metavar="METHOD",
    )  # fmt: skip
    block: tuple[str, ...] = option(
        "A block to cut after, e.g. 3, or several cuts of one plan, 3/6; repeatable; default: a "
        "quarter and half of the way.", default=(), metavar="BLOCKS",
    )  # fmt: skip
    keep: tuple[str, ...] = option(
        "Patches kept: a share of what enters each cut, or counts, 128 or 128/64; repeatable.",
        default=("0.875", "0.75", "0.625", "0.5", "0.375", "0.25"), metavar="COUNTS",
    )  # fmt: skip
    control: tuple[str, ...] = option(
        "A constant selection to stand beside the methods; repeatable.",
        default=("random", "strided", "centre"), metavar="METHOD",
    )  # fmt: skip
    rival: tuple[str, ...] = option(
        "Makes another network of the same inputs, e.g. one that shrinks or crops them first; "
        "repeatable.", default=(), metavar="MODULE:FUNCTION",
    )  # fmt: skip
    backend: tuple[str, ...] = option(
        "onnxruntime, openvino[-f32|-bf16]; repeatable.", default=("onnxruntime",), metavar="NAME"
    )
    budget: str | None = option(
        "Highest latency: a share of dense, 0.6x, or 12ms; the most accurate within it is "
        "recommended. Default: the fastest that loses no more than --lose.", default=None,
        metavar="LATENCY",
    )  # fmt: skip
    lose: float | None = option(
        "Highest loss of accuracy against dense, in its own unit; default: 0 without --budget.",
        default=None, minimum=0,
    )  # fmt: skip
    calibration: Path | None = option(_CALIBRATION, default=None, metavar="FILE")
    score: str | None = option(_SCORE, default=None, metavar="MODULE:FUNCTION")
    samples: int = option(_SAMPLES, default=64, minimum=1)
    rounds: int = option("Turns of each network on the clock.", default=5, minimum=1)
    seconds: float = option("Length of one turn.", default=1.0, minimum=0.01)
    clock: Literal["wall", "cpu"] = option(
        "wall, or cpu: time of all threads, for a machine that others use.", default="wall"
    )
    threads: int | None = option("CPU threads; default: all cores.", default=None, minimum=1)
    output: Path | None = option(
        "The plan with everything measured, as JSON.", default=None, flags=("--output", "-o"),
        metavar="PATH",
    )  # fmt: skip
    plot: Path | None = option(
        "A picture (.png): accuracy against measured latency.", default=None, metavar="PATH"
    )
