"""Embedding-free attention (EFA) and the block around it, from EDAFormer (arXiv 2407.17261).

The query is the normed token itself; key and value are one tensor, the pooled token map after a
1x1 convolution. Encoder and decoder differ in three places, see `BlockForm`. Parameter names are
those of the published checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class BlockForm:
    """What differs between encoder and decoder blocks.

    Attributes:
        norm_eps: Epsilon of norm1 and norm2.
        key_norm: Layer norm (epsilon 1e-5) and GELU on the keys.
        hidden_relu: ReLU between the first linear layer and the depthwise convolution.
    """

    norm_eps: float
    key_norm: bool
    hidden_relu: bool


ENCODER_FORM = BlockForm(norm_eps=1e-6, key_norm=False, hidden_relu=True)
DECODER_FORM = BlockForm(norm_eps=1e-5, key_norm=True, hidden_relu=False)
Grid = tuple[int, int]


def to_map(tokens: Tensor, grid: Grid) -> Tensor:
    """Return tokens (B, H * W, C), row by row, as a map (B, C, H, W)."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], *grid)


def to_tokens(image: Tensor) -> Tensor:
    """Return a map (B, C, H, W) as tokens (B, H * W, C), row by row."""
    return image.flatten(2).transpose(1, 2)


class EmbeddingFreeAttention(nn.Module):
    """Attention with one weight matrix behind it and none before.

    Args:
        dim: Channels of a token.
        heads: Attention heads.
        pooling: Side of the pooling window that makes keys out of the map.
        key_norm: Layer norm and GELU on the keys (decoder).
    """

    def __init__(self, dim: int, heads: int, pooling: int, *, key_norm: bool) -> None:
        super().__init__()
        self.heads, self.pooling = heads, pooling
        self.sr = nn.Conv2d(dim, dim, 1)
        self.proj = nn.Linear(dim, dim)
        if key_norm:
            self.norm = nn.LayerNorm(dim, eps=1e-5)
        self.key_norm = key_norm

    def keys(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Return keys, which are the values too: (B, floor(H / r) * floor(W / r), C)."""
        image = to_map(tokens, grid)
        if self.pooling > 1:
            # Floor mode: rows and columns beyond the last full window are left out.
            image = functional.avg_pool2d(image, self.pooling)
        keys: Tensor = to_tokens(self.sr(image))
        if self.key_norm:
            keys = functional.gelu(self.norm(keys))
        return keys

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Map normed tokens (B, N, C) on a grid to (B, N, C)."""
        keys = self._split(self.keys(tokens, grid))
        # softmax(q k^T / sqrt(d)) k
        mixed = functional.scaled_dot_product_attention(self._split(tokens), keys, keys)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, tokens: Tensor) -> Tensor:
        split: Tensor = tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)
        return split


class DepthwiseConv(nn.Module):
    """A depthwise 3x3 convolution, wrapped once more as the checkpoints name it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        out: Tensor = self.dwconv(image)
        return out


class FeedForward(nn.Module):
    """Linear, (ReLU,) depthwise 3x3 on the map, exact GELU, Linear."""

    def __init__(self, dim: int, hidden: int, *, hidden_relu: bool) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.dwconv = DepthwiseConv(hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.hidden_relu = hidden_relu

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Map (B, N, C) on a grid to (B, N, C)."""
        hidden = self.fc1(tokens)
        if self.hidden_relu:
            hidden = functional.relu(hidden)
        out: Tensor = self.fc2(functional.gelu(to_tokens(self.dwconv(to_map(hidden, grid)))))
        return out


class Block(nn.Module):
    """Pre-norm: ``x = x + EFA(norm1(x))``, then ``x = x + FFN(norm2(x))``."""

    def __init__(self, dim: int, heads: int, hidden: int, pooling: int, form: BlockForm) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=form.norm_eps)
        self.attn = EmbeddingFreeAttention(dim, heads, pooling, key_norm=form.key_norm)
        self.norm2 = nn.LayerNorm(dim, eps=form.norm_eps)
        self.mlp = FeedForward(dim, hidden, hidden_relu=form.hidden_relu)

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Map (B, N, C) on a grid to (B, N, C)."""
        tokens = tokens + self.attn(self.norm1(tokens), grid)
        out: Tensor = tokens + self.mlp(self.norm2(tokens), grid)
        return out
