"""SpeechTokenizer (Zhang et al., arXiv 2308.16692): eight residual codebooks at 50 Hz, 16 kHz.

DM-Codec (arXiv 2410.15017) uses the same generator, and FuseCodec builds on it. State dict names
are the published ones. The quantiser is in inference form; `transform` (a projection of the first
stage's output) is a training target and takes no part in coding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from prunus.models.codec.layers.seanet import SeanetDecoder, SeanetEncoder
from prunus.models.codec.layers.vector_quantizer import ResidualQuantizer


@dataclass(frozen=True, slots=True)
class SpeechTokenizerConfig:
    """Sizes; the defaults are the published ones.

    Attributes:
        strides: Of the encoder, in the order in which they are applied.
        sample_rate_hz: Samples per second.
        stages: Residual codebooks.
        codes: Entries of each.
        dim: Width of a code vector.
        base: Channels of the encoder's first convolution.
        semantic: Width of the projection for training.
    """

    strides: tuple[int, ...] = (2, 4, 5, 8)
    sample_rate_hz: int = 16000
    stages: int = 8
    codes: int = 1024
    dim: int = 1024
    base: int = 64
    semantic: int = 768

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return math.prod(self.strides)


class SpeechTokenizer(nn.Module):
    """Waveform <-> residual tokens.

    Args:
        config: Sizes.
    """

    def __init__(self, config: SpeechTokenizerConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SpeechTokenizerConfig()
        self.encoder = SeanetEncoder(config.base, config.strides, config.dim, bidirectional=True)
        self.quantizer = ResidualQuantizer(config.stages, config.codes, config.dim)
        self.transform = nn.Linear(config.dim, config.semantic)
        self.decoder = SeanetDecoder(config.base, config.strides[::-1], config.dim)

    def encode(self, audio: Tensor, stages: int | None = None) -> Tensor:
        """Tokenise.

        Args:
            audio: (B, 1, T) float32 at `sample_rate_hz`, nominally in [-1, 1].
            stages: Use only the first so many codebooks.

        Returns:
            (stages, B, L) int64.
        """
        return self.quantizer.encode(self.encoder(audio), stages)

    def decode(self, codes: Tensor, first: int = 0) -> Tensor:
        """Synthesise.

        Args:
            codes: (K, B, L) of the stages first .. first + K - 1.
            first: Stage of the first row.

        Returns:
            (B, 1, L * hop) float32, not limited.
        """
        out: Tensor = self.decoder(self.quantizer.decode(codes, first))
        return out

    def semantic(self, codes: Tensor) -> Tensor:
        """Project the first stage of (K, B, L) codes: (B, L, semantic), the distillation target."""
        out: Tensor = self.transform(self.quantizer.decode(codes[:1]).transpose(1, 2))
        return out

    def forward(self, audio: Tensor) -> Tensor:
        """Encode and decode (B, 1, T) to (B, 1, L * hop)."""
        return self.decode(self.encode(audio))
