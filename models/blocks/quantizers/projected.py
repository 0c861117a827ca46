"""Any quantiser between two linear layers, for features of another width.

Factorised codes (arXiv 2110.04627, section 3.2; used by DAC, arXiv 2306.06546) look codes up in few
dimensions; scalar and sign quantisers need exactly as many numbers as they have digits.
"""

from __future__ import annotations

from torch import Tensor, nn

from prunus.models.blocks.quantizers.interface import FrameQuantizer, Quantized
from prunus.runtime.errors import UsageError


class Projected(FrameQuantizer):
    """Linear layer, quantiser, linear layer.

    Codes of output vectors cannot be read off (`index`): the layers are not inverse to each other.

    Args:
        features: Width of frames outside.
        quantizer: The quantiser; keeps its own width.
    """

    def __init__(self, features: int, quantizer: FrameQuantizer) -> None:
        super().__init__(features, quantizer.sizes)
        self.quantizer = quantizer
        self.inward = nn.Linear(features, quantizer.dim)
        self.outward = nn.Linear(quantizer.dim, features)

    def encode(self, x: Tensor) -> Tensor:
        """Return codes (..., K) int64 of frames (..., features)."""
        self.check_frames(x)
        return self.quantizer.encode(self.inward(x))

    def index(self, vectors: Tensor) -> Tensor:
        """Refuse: raises UsageError; a projection has no inverse."""
        raise UsageError(
            "The codes of projected vectors cannot be read off: a projection has no inverse.",
            "Keep the codes that encode() returned.",
        )

    def decode(self, codes: Tensor) -> Tensor:
        """Return frames (..., features) of codes (..., K)."""
        out: Tensor = self.outward(self.quantizer.decode(codes))
        return out

    def forward(self, x: Tensor) -> Quantized:
        """Quantise frames (..., features); losses are the inner quantiser's."""
        self.check_frames(x)
        inner: Quantized = self.quantizer(self.inward(x))
        return Quantized(self.outward(inner.vectors), inner.codes, inner.losses)
