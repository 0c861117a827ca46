"""The layers of Dolphin's lip coder (arXiv 2509.23610) on clips (B, C, F, H, W).

The layout follows the video tokenizer MAGVIT-2 (arXiv 2310.05737) and its public re-statement;
linear attention expands queries and keys by a second-order Taylor series (BASED, arXiv 2402.18668).

What differs: every layer also takes one clip as a batch of frames (F, C, H, W). Convolutions over
time then read their neighbours from a stack of shifted frames and are 2-D (`TimeConv`), and linear
attention leaves out the products that it would compute twice. Same numbers but for the order of
sums; it is how lips are exported: 3-D convolutions and wide features cost a CPU's runtime half a
gigabyte at two seconds.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_SQUEEZE = 16
_HEADS = 2  # of linear attention at a time: its features are the largest maps of the lip coder


class Residual(nn.Module):
    """x + fn(x)."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum, in the shape of `x`."""
        out: Tensor = x + self.fn(x)
        return out


class TimeConv(nn.Conv3d):
    """A 3-D convolution of (B, C, F, H, W); the same of one clip as frames (F, C, H, W).

    Over frames it is a 2-D convolution whose channels are those of all frames that it reaches.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map a clip or its frames to the outputs' channels."""
        if x.dim() == 5:
            return super().forward(x)
        return convolve_frames(x, self.weight, self.bias, self)


def convolve_frames(x: Tensor, weight: Tensor, bias: Tensor | None, like: nn.Conv3d) -> Tensor:
    """Convolve the frames (F, C, H, W) of one clip over time and space.

    Args:
        x: Frames.
        weight: (D, C, taps, rows, columns).
        bias: (D,).
        like: Where stride and padding are taken from.
    """
    taps, (before, *around) = weight.shape[2], (int(side) for side in like.padding)
    if taps > 1:  # zeros outside the clip, as the 3-D form pads
        padded = functional.pad(x, (0, 0, 0, 0, 0, 0, before, before))
        x = torch.cat([padded[t : t + x.shape[0]] for t in range(taps)], dim=1)
    flat = weight.transpose(1, 2).flatten(1, 2)
    out: Tensor = functional.conv2d(x, flat, bias, like.stride[1:], around)
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
        # Closed at first: the unit starts as identity.
        nn.init.constant_(bias_of(self.net[2]), -10.0)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, F, H, W) or (F, C, H, W) to the same shape."""
        if x.dim() == 4:
            look = torch.softmax(self.to_k(x).flatten(2), dim=-1)
            summary = (x.flatten(2) * look).sum(dim=2)[..., None, None]
            of_frames: Tensor = x * self.net(summary)
            return of_frames
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
        """Map (B, C, F, H, W) to (B, D, F, H / 2, W / 2), or (F, C, H, W) alike."""
        out: Tensor = per_frame(self.conv, x) if x.dim() == 5 else self.conv(x)
        return out


class RMSNorm(nn.Module):
    """Divide by the norm over channels, times sqrt(C); statistics never in half precision."""

    def __init__(self, channels: int, *, clip: bool = False) -> None:
        super().__init__()
        shape = (channels, 1, 1, 1) if clip else (channels,)
        self.gamma = nn.Parameter(torch.ones(shape))
        self.scale = math.sqrt(channels)
        self.axis = 1 if clip else -1

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over axis 1 of a clip or its frames, else over the last axis."""
        length = torch.sqrt((x * x).sum(dim=self.axis, keepdim=True)).clamp(min=1e-12)
        frames = self.axis == 1 and x.dim() == 4
        return x / length * self.scale * (self.gamma[..., 0] if frames else self.gamma)


class ChannelFeedForward(nn.Module):
    """RMS norm, widen, first half times GELU of the second, narrow; pixel by pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels * 8 // 3
        self.norm = RMSNorm(channels, clip=True)
        self.net = nn.Sequential(
            TimeConv(channels, 2 * hidden, 1), nn.Identity(), TimeConv(hidden, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, F, H, W) or (F, C, H, W) to the same shape."""
        kept, gate = self.net[0](self.norm(x)).chunk(2, dim=1)
        out: Tensor = self.net[2](kept * functional.gelu(gate))
        return out


def taylor_features(x: Tensor) -> Tensor:
    """Expand (..., d) to [1, x, (x outer x) / sqrt 2], (..., 1 + d + d^2).

    The product of two such vectors is 1 + q.k + (q.k)^2 / 2, the series of exp(q.k).
    """
    outer = (x.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2) * math.sqrt(0.5)
    return torch.cat((torch.ones_like(x[..., :1]), x, outer), dim=-1)


def distinct_pairs(dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pairs i <= j of `dim` numbers and how the series weighs their products.

    (q.k)^2 / 2 is the sum over them of weight * (q_i q_j) * (k_i k_j): 36 products where the outer
    product has 64.

    Returns:
        i and j, (pairs,) int64, and the weights, (pairs, 1) float32.
    """
    first, second = torch.triu_indices(dim, dim)
    return first, second, torch.where(first == second, 0.5, 1.0).unsqueeze(1)


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
        """Map (B, C, F, H, W) or (F, C, H, W) to the same shape."""
        if x.dim() == 4:
            return self._by_frames(x)
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

    def _by_frames(self, x: Tensor) -> Tensor:
        """Do the same with pixels last, a few heads at a time.

        A column of ones beside the values yields the mass with the same product.
        """
        tokens = self.norm(pixels_of(x)).transpose(1, 2)
        frames, _, count = tokens.shape
        shape = (frames, self.heads, self.dim, count)
        query = (_product(self.attn.to_q[0], tokens) * self.dim**-0.5).reshape(shape)
        both = _product(self.attn.to_kv[0], tokens).reshape(frames, 2, *shape[1:])
        first, second, weights = (part.to(x.device) for part in distinct_pairs(self.dim))
        ones = torch.ones_like(query[:, :_HEADS, :1])
        weights = torch.cat((torch.ones_like(weights[: 1 + self.dim]), weights)).to(x.dtype)

        def features(part: Tensor) -> Tensor:
            products = part.index_select(2, first) * part.index_select(2, second)
            return torch.cat((ones[:, : part.shape[1]], part, products), dim=2)

        mixed = []
        for start in range(0, self.heads, _HEADS):
            few = slice(start, start + _HEADS)
            asked, key, value = query[:, few], both[:, 0, few], both[:, 1, few]
            marked = torch.cat((value, ones[:, : value.shape[1]]), dim=2)
            state = (features(key) @ marked.transpose(2, 3)) * weights
            found = state.transpose(2, 3) @ features(asked)
            mixed.append(found[:, :, : self.dim] / found[:, :, self.dim :].clamp(min=1e-5))
        out = _product(self.attn.to_out[0], torch.cat(mixed, dim=1).flatten(1, 2))
        return out.reshape(x.shape)


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
        """Map (B, C, F, H, W) or (F, C, H, W) to the same shape."""
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
        """Normalise (B, C, F, H, W) or (F, C, H, W) over C."""
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
    if x.dim() == 4:
        return x.flatten(2).transpose(1, 2)
    return x.permute(0, 2, 3, 4, 1).flatten(2, 3).flatten(0, 1)


def clip_of(pixels: Tensor, like: Tensor) -> Tensor:
    """Undo `pixels_of`: (B * F, H * W, C) to the layout and the sizes of `like`."""
    if like.dim() == 4:
        return pixels.transpose(1, 2).reshape(like.shape)
    batch, _, frames, height, width = like.shape
    return pixels.reshape(batch, frames, height, width, -1).permute(0, 4, 1, 2, 3)


def _product(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a linear layer without a bias to the channels of (F, C, N)."""
    if not isinstance(layer, nn.Linear):
        raise TypeError(f"expected a linear layer, got {type(layer).__name__}")
    return layer.weight @ x


def _conv(module: nn.Module) -> nn.Conv2d:
    if not isinstance(module, nn.Conv2d):
        raise TypeError(f"expected a 2-D convolution, got {type(module).__name__}")
    return module


def bias_of(module: nn.Module) -> Tensor:
    """Return the bias of a convolution that has one."""
    bias = module.bias if isinstance(module, nn.Conv2d | nn.Conv3d) else None
    if bias is None:
        raise TypeError(f"expected a convolution with a bias, got {type(module).__name__}")
    return bias
