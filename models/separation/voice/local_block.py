"""Local attention of Dolphin (arXiv 2509.23610): heat diffusion and a long depthwise filter.

x + scale * GN(dw3(GELU(dw65(GN(heat(x))))))
"""

from __future__ import annotations

from torch import Tensor, nn

from prunus.models.separation.channels_first import GlobalNorm, LayerScale, depthwise
from prunus.models.separation.voice.feed_forward import FeedForward
from prunus.models.separation.voice.heat_layer import HeatLayer


class LocalAttention(nn.Module):
    """Mix neighbouring steps of (B, C, T)."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.heat1d = HeatLayer(channels)
        self.GN1 = GlobalNorm(channels, eps=1e-5)
        self.dw_conv_1d = depthwise(channels, kernel)
        self.linear3 = nn.Sequential(nn.GELU(), depthwise(channels, 3))
        self.GN2 = GlobalNorm(channels, eps=1e-5)
        self.Layer_scale = LayerScale(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T) to the same shape."""
        mixed = self.linear3(self.dw_conv_1d(self.GN1(self.heat1d(x))))
        out: Tensor = x + self.Layer_scale(self.GN2(mixed))
        return out


class LocalParts(nn.Module):
    """Attention and feed-forward part under the checkpoint's names."""

    def __init__(self, channels: int, kernel: int, expansion: int) -> None:
        super().__init__()
        self.CLA = LocalAttention(channels, kernel)
        self.FFN = FeedForward(channels, expansion)


class LocalBlock(nn.Module):
    """Local attention, then the feed-forward part."""

    def __init__(self, channels: int, kernel: int, expansion: int) -> None:
        super().__init__()
        self.block = LocalParts(channels, kernel, expansion)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T) to the same shape."""
        out: Tensor = self.block.FFN(self.block.CLA(x))
        return out
