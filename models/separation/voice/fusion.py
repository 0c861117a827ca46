"""Audio meets video, once: lips gate the audio map and weigh it over time (arXiv 2509.23610).

    key(a) * up(W v) + up(softmax over frames(attention(v))) * value(a)

The softmax runs over the *frames of the clip*, so the length of the clip is part of the function.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunus.models.separation.channels_first import GlobalNorm
from prunus.models.separation.lips.head import ConvNorm
from prunus.models.separation.voice.resample import nearest


class Fusion(nn.Module):
    """Combine an audio map and a video map of another rate."""

    def __init__(self, channels: int, video_channels: int) -> None:
        super().__init__()
        self.key_embed = _embed(channels, channels, channels)
        self.value_embed = _embed(channels, channels, channels)
        self.resize = _embed(video_channels, channels, 1)
        self.attention_embed = _embed(video_channels, channels, video_channels)

    def forward(self, audio: Tensor, video: Tensor) -> Tensor:
        """Return (B, C, T) from audio (B, C, T) and video (B, V, F)."""
        length = audio.shape[-1]
        weights = torch.softmax(self.attention_embed(video), dim=-1)
        gated = self.key_embed(audio) * nearest(self.resize(video), length)
        out: Tensor = gated + nearest(weights, length) * self.value_embed(audio)
        return out


def _embed(inputs: int, outputs: int, groups: int) -> ConvNorm:
    return ConvNorm(
        nn.Conv1d(inputs, outputs, 1, groups=groups), GlobalNorm(outputs), activated=True
    )
