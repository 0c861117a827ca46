"""Convolutions of UniTransPose: the stem, the steps between stages, the sub-pixel decoder."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


def stem(channels: int) -> nn.Sequential:
    """Return two 3x3 convolutions of stride 2: (B, 3, H, W) to (B, C, H / 4, W / 4)."""
    half = channels // 2
    return nn.Sequential(
        nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(half),
        nn.GELU(),
        nn.Conv2d(half, channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels),
    )


def halve(channels: int) -> nn.Sequential:
    """Return the step to the next stage: (B, C, H, W) to (B, 2 C, H / 2, W / 2)."""
    return nn.Sequential(
        nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(2 * channels),
    )


class UpStep(nn.Module):
    """Twice the resolution: 1x1 convolution and pixel shuffle, plus a lateral map, refined.

    All wide products happen at the low resolution; a depthwise 3x3 and a 1x1 convolution follow.
    """

    def __init__(self, channels: int, lateral: int, width: int) -> None:
        super().__init__()
        self.up = nn.Sequential(
            nn.Conv2d(channels, 4 * width, 1),
            nn.PixelShuffle(2),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.lateral = nn.Conv2d(lateral, width, 1)
        self.refine = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            nn.Conv2d(width, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )

    def forward(self, features: Tensor, lateral: Tensor) -> Tensor:
        """Return (B, width, 2 H, 2 W) of features (B, C, H, W) and a map (B, L, 2 H, 2 W)."""
        out: Tensor = self.refine(self.up(features) + self.lateral(lateral))
        return out


class SubpixelDecoder(nn.Module):
    """From the stages' maps, at strides 4 to 32, to one map at stride 4."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        inputs = (channels[-1], *(width for _ in channels[2:]))
        laterals = tuple(reversed(channels[:-1]))
        self.steps = nn.ModuleList(
            UpStep(c, lateral, width) for c, lateral in zip(inputs, laterals, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return (B, width, H / 4, W / 4) of the stages' maps, finest first."""
        *laterals, features = maps
        for step, lateral in zip(self.steps, reversed(laterals), strict=True):
            features = step(features, lateral)
        return features
