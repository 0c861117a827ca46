"""What a model card says about one graph of a speech codec.

A codec is two or three graphs of the same weights - encoder, decoder, for some a speaker encoder -
that agree on `CodecPostprocess.streams` and on the sample rate. Sizes are in frames; a frame is
`CodecPreprocess.hop` samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from prunus.runtime.card.reading import (
    Count,
    Positive,
    Range,
    SampleRate,
    Size,
    SizeOrNone,
)
from prunus.runtime.errors import ArtifactError

Part = Literal["encoder", "decoder", "speaker"]


@dataclass(frozen=True, slots=True)
class CodeStream:
    """One sequence of codes.

    Attributes:
        name: Output of the encoder and input of the decoder, int64 (1, codebooks, codes).
        codebooks: Rows; residual stages in order.
        size: Entries of each codebook; indices are 0 .. size - 1.
        stride: Frames per code.
    """

    name: str
    codebooks: Size
    size: Annotated[int, Range(2, 1 << 24)]
    stride: Size = 1

    def __post_init__(self) -> None:
        if min(self.codebooks, self.stride) < 1 or self.size < 2:
            raise ArtifactError(
                f"The code stream '{self.name}' has {self.codebooks} codebooks of {self.size} and "
                f"a stride of {self.stride}; expected 1 or more, of 2 or more, and 1 or more."
            )

    @property
    def bits(self) -> int:
        """Bits of one index."""
        return (self.size - 1).bit_length()


@dataclass(frozen=True, slots=True)
class CodecPreprocess:
    """How sound meets the graph.

    Attributes:
        kind: Discriminator in JSON.
        sample_rate_hz: Samples per second, mono float32 in [-1, 1].
        hop: Samples per frame.
        frames: Frames per run.
        left: Of these, frames at the start that are context only and whose result is dropped.
        right: The same at the end. Step graphs have neither: they carry state instead.
        fade: Samples over which neighbouring windows are blended (decoder).
        resampler: What brings other rates to this one: the formula that the training data went
            through, where it is known to be torchaudio's.
    """

    sample_rate_hz: SampleRate
    hop: Positive
    frames: Positive
    left: Count = 0
    right: Count = 0
    fade: Count = 0
    resampler: Literal["soxr", "torchaudio"] = "soxr"
    kind: Literal["codec"] = "codec"

    def __post_init__(self) -> None:
        if min(self.sample_rate_hz, self.hop, self.frames - self.left - self.right) < 1 or (
            min(self.left, self.right, self.fade) < 0 or self.fade > self.hop
        ):
            raise ArtifactError(
                f"The card has windows of {self.frames} frames with {self.left} and {self.right} "
                f"of context, a hop of {self.hop} and a fade of {self.fade} samples; expected room "
                "for at least one frame between, and a fade within one hop."
            )

    @property
    def commit(self) -> int:
        """Frames of each window that count."""
        return self.frames - self.left - self.right


@dataclass(frozen=True, slots=True)
class CodecPostprocess:
    """Codebook layout, shared by all graphs of a codec.

    Attributes:
        kind: Discriminator in JSON.
        part: Which graph this is.
        streams: Sequences of codes.
        voice: Width of the voice vector that goes once per recording, 0 for codecs without one.
    """

    part: Part
    streams: tuple[CodeStream, ...]
    voice: SizeOrNone = 0
    kind: Literal["codes"] = "codes"

    def __post_init__(self) -> None:
        if not self.streams or self.voice < 0:
            raise ArtifactError(
                f"The card has {len(self.streams)} code streams and a voice of {self.voice}; "
                "expected at least one stream, and 0 or more."
            )

    @property
    def stride(self) -> int:
        """Frames after which every stream has given a whole number of codes."""
        import math

        return math.lcm(*(stream.stride for stream in self.streams))

    def bits_per_second(self, preprocess: CodecPreprocess) -> float:
        """Return the rate of the codes alone."""
        bits = sum(s.codebooks * s.bits / s.stride for s in self.streams)
        return bits * preprocess.sample_rate_hz / preprocess.hop
