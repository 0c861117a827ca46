"""Options of the codecs' exports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.export.common.options import CALIBRATION, OUTPUT, WeightOptions, small
from prunus.runtime.card.precision import Precision
from prunus.runtime.options import group, option


def _frames(what: str, default: int | None = None, minimum: int | None = 0) -> Any:
    return option(f"Frames {what}.", default=default, minimum=minimum)


@dataclass(frozen=True, slots=True)
class CodecFileOptions:
    """What the files of every codec may be."""

    precision: Precision = option(
        "Number format; int8 is for the decoder, the rest stays fp32.", default="fp32"
    )
    weights: WeightOptions = group(WeightOptions)
    calibration: Path | None = option(
        "Recording for int8 and for the comparison with PyTorch; default: synthetic.",
        formerly=("--sound",),
        **CALIBRATION,
    )
    output: Path | None = option(
        "NAME of the files NAME-encoder.onnx and so on; default: named after the options.",
        **OUTPUT,
    )


@dataclass(frozen=True, slots=True)
class NsfcodecOptions:
    """Options of NsfCodec."""

    step: int = _frames("of 20 ms per step", 1, None)
    small: bool = small()
    file: CodecFileOptions = group(CodecFileOptions)


@dataclass(frozen=True, slots=True)
class WavtokenizerOptions:
    """Options of WavTokenizer."""

    variant: str = option(
        "tok75 or tok40 (tokens per second); a checkpoint has its own.",
        default="tok75",
        metavar="NAME",
    )
    step: int | None = _frames("per step of the encoder; default: 0.2 s", minimum=1)
    window: int | None = _frames("that the decoder sees at once; default: 3 s", minimum=1)
    left: int | None = _frames("of these that are past context")
    right: int | None = _frames("of these that are future context")
    file: CodecFileOptions = group(CodecFileOptions)


@dataclass(frozen=True, slots=True)
class FusecodecOptions:
    """Options of FuseCodec; frames are of 20 ms."""

    step: int = _frames("per step of the decoder", 10, 1)
    window: int = _frames("that the encoder sees at once; its LSTM runs both ways", 100, 1)
    left: int = _frames("of these that are past context", 25)
    right: int = _frames("of these that are future context", 25)
    file: CodecFileOptions = group(CodecFileOptions)


@dataclass(frozen=True, slots=True)
class FreecodecOptions:
    """Options of FreeCodec; frames are of 20 ms, eight make a prosody code.

    The window is about as long as the training segments of the paper.
    """

    window: int = _frames("per window, a multiple of 8", 64, 1)
    left: int = _frames("of these that are past context, a multiple of 8", 8)
    right: int = _frames("of these that are future context, a multiple of 8", 8)
    file: CodecFileOptions = group(CodecFileOptions)
