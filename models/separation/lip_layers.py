"""The layers of Dolphin's lip coder (arXiv 2509.23610) on clips (B, C, F, H, W).

The layout follows the video tokenizer MAGVIT-2 (arXiv 2310.05737) and its public re-statement;
linear attention expands queries and keys by a second-order Taylor series (BASED, arXiv 2402.18668).

What differs: everything per frame is written as a convolution over the whole clip, so no frame is
moved in memory; attention alone takes the frames apart.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_SQUEEZE = 16


class Residual(nn.Module):
    """x + fn(x)."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum, in the shape of `x`."""
        out: Tensor = x + self.fn(x)
        return out


class SqueezeExcite(nn.Module):
    """Weigh the channels of each frame by a summary of where a learned map looks (GCNet-like)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.to_k = nn.Conv2d(channels, 1, 1)
        hidden = max(_SQUEEZE, channels // 2)
        self.net = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(hidden, channels, 1),
            nn.Sigmoid(),
        )
        nn.init.zeros_(_conv(self.net[2]).weight)
        nn.init.constant_(_bias(self.net[2]), -10.0)  # closed at first: the unit starts as identity

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, F, H, W) to the same shape."""
        batch, _, frames, height, width = x.shape
        look = per_frame(self.to_k, x).reshape(batch, 1, frames, height * width)
        weights = torch.softmax(look, dim=-1).reshape(batch, 1, frames, height, width)
        summary = (x * weights).sum(dim=(3, 4), keepdim=True)
        hidden = self.net[1](per_frame(self.net[0], summary))
        gate: Tensor = self.net[3](per_frame(self.net[2], hidden))
        return x * gate


class HalveSpace(nn.Module):
    """A 3x3 convolution with stride 2 in every frame."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, outputs, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, F, H, W) to (B, D, F, H / 2, W / 2)."""
        return per_frame(self.conv, x)


class RMSNorm(nn.Module):
    """Divide by the norm over channels, times sqrt(C); statistics never in half precision."""

    def __init__(self, channels: int, *, clip: bool = False) -> None:
        super().__init__()
        shape = (channels, 1, 1, 1) if clip else (channels,)
        self.gamma = nn.Parameter(torch.ones(shape))
        self.scale = math.sqrt(channels)
        self.axis = 1 if clip else -1

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over axis 1 of a clip, else over the last axis."""
        length = torch.sqrt((x * x).sum(dim=self.axis, keepdim=True)).clamp(min=1e-12)
        return x / length * self.scale * self.gamma


class ChannelFeedForward(nn.Module):
    """RMS norm, widen, first half times GELU of the second, narrow; pixel by pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels * 8 // 3
        self.norm = RMSNorm(channels, clip=True)
        self.net = nn.Sequential(
            nn.Conv3d(channels, 2 * hidden, 1), nn.Identity(), nn.Conv3d(hidden, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, F, H, W) to the same shape."""
        kept, gate = self.net[0](self.norm(x)).chunk(2, dim=1)
        out: Tensor = self.net[2](kept * functional.gelu(gate))
        return out


def taylor_features(x: Tensor) -> Tensor:
    """Expand (..., d) to [1, x, (x outer x) / sqrt 2], (..., 1 + d + d^2).

    The product of two such vectors is 1 + q.k + (q.k)^2 / 2, the series of exp(q.k).
    """
    outer = (x.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2) * math.sqrt(0.5)
    return torch.cat((torch.ones_like(x[..., :1]), x, outer), dim=-1)


class _LinearProjections(nn.Module):
    def __init__(self, channels: int, heads: int, dim: int) -> None:
        super().__init__()
        self.to_q = nn.Sequential(nn.Linear(channels, heads * dim, bias=False))
        self.to_kv = nn.Sequential(nn.Linear(channels, 2 * heads * dim, bias=False))
        self.to_out = nn.Sequential(nn.Linear(heads * dim, channels, bias=False))


class LinearAttention(nn.Module):
    """Attention over the pixels of each frame in linear time, no positions."""

    def __init__(self, channels: int, heads: int, dim: int) -> None:
        super().__init__()
        self.heads, self.dim = heads, dim
        self.norm = RMSNorm(channels)
        self.attn = _LinearProjections(channels, heads, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, F, H, W) to the same shape."""
        tokens = self.norm(pixels_of(x))
        batch, count, _ = tokens.shape
        shape = (batch, count, self.heads, self.dim)
        key, value = self.attn.to_kv(tokens).chunk(2, dim=-1)
        query, key, value = (
            part.reshape(shape).transpose(1, 2)
            for part in (self.attn.to_q(tokens) * self.dim**-0.5, key, value)
        )
        query, key = taylor_features(query), taylor_features(key)
        mass = (query * key.sum(dim=2, keepdim=True)).sum(dim=-1, keepdim=True)
        mixed = query @ (key.transpose(2, 3) @ value) / mass.clamp(min=1e-5)
        out = self.attn.to_out(mixed.transpose(1, 2).reshape(batch, count, -1))
        return clip_of(out, x)


class MemoryAttention(nn.Module):
    """Softmax attention over the pixels of each frame and a few learned keys and values."""

    def __init__(self, channels: int, heads: int, dim: int, memories: int) -> None:
        super().__init__()
        self.heads, self.dim = heads, dim
        self.mem_kv = nn.Parameter(torch.randn(2, heads, memories, dim))
        self.norm = RMSNorm(channels)
        self.to_qkv = nn.Sequential(nn.Linear(channels, 3 * heads * dim, bias=False))
        # Place 0 is the head merge of the checkpoint's layout; it has no parameters.
        self.to_out = nn.Sequential(nn.Identity(), nn.Linear(heads * dim, channels, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, F, H, W) to the same shape."""
        tokens = self.norm(pixels_of(x))
        batch, count, _ = tokens.shape
        shape = (batch, count, self.heads, self.dim)
        query, key, value = (
            part.reshape(shape).transpose(1, 2) for part in self.to_qkv(tokens).chunk(3, dim=-1)
        )
        memory = self.mem_kv.unsqueeze(1).expand(-1, batch, -1, -1, -1)
        key = torch.cat((memory[0], key), dim=2)
        value = torch.cat((memory[1], value), dim=2)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        out = self.to_out(mixed.transpose(1, 2).reshape(batch, count, -1))
        return clip_of(out, x)


class ClipNorm(nn.LayerNorm):
    """Layer norm over the channels of a clip."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, F, H, W) over C."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def per_frame(conv: nn.Module, x: Tensor) -> Tensor:
    """Apply a 2-D convolution to every frame of (B, C, F, H, W)."""
    conv = _conv(conv)
    weight = conv.weight.unsqueeze(2)
    stride = (1, conv.stride[0], conv.stride[1])
    padding = (0, int(conv.padding[0]), int(conv.padding[1]))
    return functional.conv3d(x, weight, conv.bias, stride=stride, padding=padding)


def pixels_of(x: Tensor) -> Tensor:
    """Return (B * F, H * W, C): every frame of a clip as a list of pixels."""
    return x.permute(0, 2, 3, 4, 1).flatten(2, 3).flatten(0, 1)


def clip_of(pixels: Tensor, like: Tensor) -> Tensor:
    """Undo `pixels_of`: (B * F, H * W, C) to (B, C, F, H, W) in the sizes of `like`."""
    batch, _, frames, height, width = like.shape
    return pixels.reshape(batch, frames, height, width, -1).permute(0, 4, 1, 2, 3)


def _conv(module: nn.Module) -> nn.Conv2d:
    if not isinstance(module, nn.Conv2d):
        raise TypeError(f"expected a 2-D convolution, got {type(module).__name__}")
    return module


def _bias(module: nn.Module) -> Tensor:
    bias = _conv(module).bias
    if bias is None:
        raise TypeError("expected a convolution with a bias")
    return bias
