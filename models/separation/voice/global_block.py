"""Global attention of Dolphin (arXiv 2509.23610): every level attends over the same coarse tokens.

The map is average-pooled to n tokens, they attend to one another, and each answer is added to all
steps of its token through a gate. There is no residual around the coarse attention.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunus.models.separation.channels_first import ChannelNorm, LayerScale, PointwiseLinear
from prunus.models.separation.voice.feed_forward import FeedForward
from prunus.models.separation.voice.relative_positions import position_scores
from prunus.models.separation.voice.resample import average_pool


class SelfAttention(nn.Module):
    """scale * W_o MHA(LN x) with content-dependent relative positions; no residual."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.layer_norm = ChannelNorm(channels)
        self.linear_q = PointwiseLinear(channels, channels)
        self.linear_k = PointwiseLinear(channels, channels)
        self.linear_v = PointwiseLinear(channels, channels)
        self.linear_out = PointwiseLinear(channels, channels)
        self.Layer_scale = LayerScale(channels)

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """Map tokens (B, C, n) to the same shape; `positions` is for `position_scores`."""
        batch, channels, tokens = x.shape
        dim = channels // self.heads
        normed = self.layer_norm(x)
        query, key, value = (
            part(normed).reshape(batch, self.heads, dim, tokens)
            for part in (self.linear_q, self.linear_k, self.linear_v)
        )
        query = query.transpose(2, 3)
        scores = query @ key
        if positions is not None:
            scores = scores + position_scores(query, positions)
        weights = torch.softmax(scores * dim**-0.5, dim=-1)
        mixed = (value @ weights.transpose(2, 3)).reshape(batch, channels, tokens)
        out: Tensor = self.Layer_scale(self.linear_out(mixed))
        return out


class _Pooled(nn.Module):
    """Holds the attention and the gate under the checkpoint's names."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(channels, heads)
        self.linear = nn.Sequential(ChannelNorm(channels), PointwiseLinear(channels, channels))


class PooledAttention(nn.Module):
    """x + sigmoid(W LN(x)) * up(attention(pool(x)))."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.block = _Pooled(channels, heads)

    def forward(self, x: Tensor, positions: Tensor, tokens: int) -> Tensor:
        """Map (B, C, T) to the same shape; `tokens` divides T."""
        batch, channels, length = x.shape
        coarse: Tensor = self.block.self_attn(average_pool(x, tokens), positions)
        gate = torch.sigmoid(self.block.linear(x))
        # Multiplied by broadcasting: the repeated map never exists.
        steps = gate.reshape(batch, channels, tokens, length // tokens)
        answer: Tensor = steps * coarse.unsqueeze(-1)
        return x + answer.reshape(batch, channels, length)


class GlobalParts(nn.Module):
    """Attention and feed-forward part under the checkpoint's names."""

    def __init__(self, channels: int, heads: int, expansion: int) -> None:
        super().__init__()
        self.DU_MHSA = PooledAttention(channels, heads)
        self.FFN = FeedForward(channels, expansion)


class GlobalBlock(nn.Module):
    """Global attention, then the feed-forward part."""

    def __init__(self, channels: int, heads: int, expansion: int) -> None:
        super().__init__()
        self.block = GlobalParts(channels, heads, expansion)

    def forward(self, x: Tensor, positions: Tensor, tokens: int) -> Tensor:
        """Map (B, C, T) to the same shape."""
        out: Tensor = self.block.FFN(self.block.DU_MHSA(x, positions, tokens))
        return out
