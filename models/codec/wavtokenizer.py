"""WavTokenizer (Ji et al., arXiv 2408.16532): one codebook, 40 or 75 tokens per second, 24 kHz.

State dict names are those of the published checkpoints, less the mirrored convolutional decoder
that they carry and never use. What differs: the inverse transform is a transposed convolution (see
`layers.istft`), the code search drops the constant |x|^2, and the quantiser is in inference form.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import cast

from torch import Tensor, nn

from prunus.models.codec.layers.seanet import SeanetEncoder
from prunus.models.codec.layers.vector_quantizer import ResidualQuantizer
from prunus.models.codec.layers.vocos import SpectrumHead, VocosBackbone

BANDWIDTHS = 4  # rows of the adaptive norms; published inference uses row 0


@dataclass(frozen=True, slots=True)
class WavTokenizerConfig:
    """Sizes of one published configuration.

    Attributes:
        name: ``tok75`` or ``tok40``.
        strides: Of the encoder, in the order in which they are applied.
        sample_rate_hz: Samples per second.
        codes: Entries of the codebook.
        dim: Width of a code vector.
        base: Channels of the encoder's first convolution.
        width: Channels of the decoder.
        hidden: Width between the linear layers of a decoder block.
        blocks: ConvNeXt blocks of the decoder.
    """

    name: str
    strides: tuple[int, ...]
    sample_rate_hz: int = 24000
    codes: int = 4096
    dim: int = 512
    base: int = 32
    width: int = 768
    hidden: int = 2304
    blocks: int = 12

    @property
    def hop(self) -> int:
        """Samples per token."""
        return math.prod(self.strides)

    @property
    def fft_size(self) -> int:
        """Window of the head in samples."""
        return 4 * self.hop


CONFIGS: Mapping[str, WavTokenizerConfig] = MappingProxyType(
    {
        "tok75": WavTokenizerConfig("tok75", (2, 4, 5, 8)),
        "tok40": WavTokenizerConfig("tok40", (4, 5, 5, 6)),
    }
)


class WavTokenizer(nn.Module):
    """Waveform <-> tokens.

    Args:
        config: Sizes.
    """

    def __init__(self, config: WavTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        encoder = SeanetEncoder(config.base, config.strides, config.dim)
        quantizer = ResidualQuantizer(1, config.codes, config.dim)
        self.feature_extractor = nn.ModuleDict(
            {"encodec": nn.ModuleDict({"encoder": encoder, "quantizer": quantizer})}
        )
        self.backbone = VocosBackbone(
            config.dim, config.width, config.hidden, config.blocks, BANDWIDTHS
        )
        self.head = SpectrumHead(config.width, config.fft_size, config.hop)

    @property
    def encoder(self) -> SeanetEncoder:
        """The convolutional encoder."""
        return cast(SeanetEncoder, self._encodec["encoder"])

    @property
    def quantizer(self) -> ResidualQuantizer:
        """The quantiser with its one codebook."""
        return cast(ResidualQuantizer, self._encodec["quantizer"])

    @property
    def _encodec(self) -> nn.ModuleDict:
        return cast(nn.ModuleDict, self.feature_extractor["encodec"])

    def encode(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Tokenise.

        Args:
            audio: (B, T) float32 at `sample_rate_hz`, nominally in [-1, 1].

        Returns:
            Code vectors (B, dim, L) and codes (1, B, L) int64, L = ceil(T / hop) for whole frames.
        """
        codes = self.quantizer.encode(self.encoder(audio.unsqueeze(1)))
        return self.quantizer.decode(codes), codes

    def codes_to_features(self, codes: Tensor) -> Tensor:
        """Map codes (1, L) or (1, B, L) to code vectors (B, dim, L)."""
        if codes.dim() == 2:
            codes = codes.unsqueeze(1)
        return self.quantizer.decode(codes)

    def decode(self, features: Tensor, bandwidth: int = 0, valid: Tensor | None = None) -> Tensor:
        """Synthesise.

        Args:
            features: (B, dim, L) code vectors.
            bandwidth: Row of the adaptive norms.
            valid: (B, 1, L) ones, zeros behind the end; None: every frame counts.

        Returns:
            (B, L * hop) float32 samples, not limited.
        """
        out: Tensor = self.head(self.backbone(features, bandwidth, valid), valid)
        return out

    def forward(self, audio: Tensor, bandwidth: int = 0) -> Tensor:
        """Encode and decode (B, T) samples to (B, L * hop)."""
        return self.decode(self.encode(audio)[0], bandwidth)
