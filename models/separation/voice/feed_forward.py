"""The convolutional feed-forward part behind every attention of Dolphin (arXiv 2509.23610)."""

from __future__ import annotations

from torch import Tensor, nn

from prunus.models.separation.channels_first import (
    ChannelNorm,
    LayerScale,
    PointwiseLinear,
    depthwise,
)


class FeedForward(nn.Module):
    """x + scale * W2 GLU(dw3(W1 LN(x))) on (B, C, T)."""

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        hidden = expansion * channels
        hidden -= hidden % 2
        self.net1 = nn.Sequential(ChannelNorm(channels), PointwiseLinear(channels, hidden))
        self.depthwise = depthwise(hidden, 3)
        # The first two places are the gate and the dropout of training.
        self.net2 = nn.Sequential(
            nn.GLU(dim=1), nn.Identity(), PointwiseLinear(hidden // 2, channels)
        )
        self.Layer_scale = LayerScale(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, T)."""
        out: Tensor = x + self.Layer_scale(self.net2(self.depthwise(self.net1(x))))
        return out
