"""GCNet's global context block (arXiv 1904.11492, section 3.3, figure 4d).

One set of attention weights for the whole map, whatever the query: the weighted mean of all
positions passes a bottleneck and is added to, or multiplied into, every position.

    a_j = softmax_j(w . x_j + b)                 over all H * W positions
    c   = sum_j a_j x_j
    t   = W2 ReLU(LN(W1 c + b1)) + b2            p = int(C * ratio) channels inside
    y   = x * sigmoid(t_mul) + t_add             either factor may be missing

Parameter names and shapes are those of the published block (`conv_mask`,
`channel_add_conv.{0,1,3}`, `channel_mul_conv.{0,1,3}`).

What differs: the bottleneck runs on (B, C) instead of (B, C, 1, 1), so that its layer norm is over
the last axis, which every engine handles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.models.segmentation.efa import FeedForward, Grid, to_map, to_tokens
from prunus.runtime.errors import UsageError, nearest

POOLINGS = ("attention", "average")
FUSIONS = ("add", "multiply")


class GlobalContext(nn.Module):
    """The block: pool once, transform, spread.

    Args:
        dim: Channels C.
        ratio: Width of the bottleneck as a share of C.
        pooling: ``attention``, or ``average`` for a plain mean.
        fusions: ``add``, ``multiply`` or both; the product comes first.

    Raises:
        UsageError: unknown pooling or fusion, or a bottleneck without channels.
    """

    def __init__(
        self,
        dim: int,
        ratio: float = 0.25,
        *,
        pooling: str = "attention",
        fusions: Sequence[str] = ("add",),
    ) -> None:
        super().__init__()
        _known("pooling", [pooling], POOLINGS)
        _known("fusion", fusions, FUSIONS)
        width = int(dim * ratio)
        if width < 1:
            raise UsageError(f"A ratio of {ratio} leaves no channel of {dim}; expected 1 or more.")
        if pooling == "attention":
            self.conv_mask = nn.Conv2d(dim, 1, 1)
        self.attends = pooling == "attention"
        for name, fusion in (("channel_add_conv", "add"), ("channel_mul_conv", "multiply")):
            if fusion in fusions:
                self.add_module(name, _bottleneck(dim, width))
        self.fusions = tuple(fusions)

    def context(self, image: Tensor) -> Tensor:
        """Pool (B, C, H, W) to (B, C)."""
        if not self.attends:
            return image.mean(dim=(2, 3))
        weights = self.conv_mask(image).flatten(2).softmax(dim=2)  # (B, 1, H * W)
        pooled: Tensor = torch.matmul(image.flatten(2), weights.transpose(1, 2)).squeeze(2)
        return pooled

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, C, H, W) float to the same shape."""
        context = self.context(image)
        out = image
        if "multiply" in self.fusions:
            gate = _transform(self.get_submodule("channel_mul_conv"), context).sigmoid()
            out = out * gate[:, :, None, None]
        if "add" in self.fusions:
            added = _transform(self.get_submodule("channel_add_conv"), context)
            out = out + added[:, :, None, None]
        return out


def _known(what: str, words: Sequence[str], known: Sequence[str]) -> None:
    for word in words:
        if word not in known:
            raise UsageError(
                f"Unknown {what} '{word}'{nearest(word, list(known))}.",
                f"Choose among {', '.join(known)}.",
            )
    if not words:
        raise UsageError(f"Got no {what}; expected one or more of {', '.join(known)}.")


def _bottleneck(dim: int, width: int) -> nn.Sequential:
    last = nn.Conv2d(width, dim, 1)
    nn.init.zeros_(last.weight)  # untrained, the block is the identity (or half the map)
    nn.init.zeros_(cast(Tensor, last.bias))
    return nn.Sequential(nn.Conv2d(dim, width, 1), nn.LayerNorm([width, 1, 1]), nn.ReLU(), last)


def _transform(bottleneck: nn.Module, context: Tensor) -> Tensor:
    """Run the bottleneck's four layers on vectors (B, C)."""
    first, norm, _, last = cast("tuple[nn.Conv2d, nn.LayerNorm, nn.ReLU, nn.Conv2d]", bottleneck)
    hidden = functional.linear(context, first.weight.flatten(1), first.bias)
    weight, bias = norm.weight.flatten(), norm.bias.flatten()
    hidden = functional.relu(functional.layer_norm(hidden, weight.shape, weight, bias, norm.eps))
    return functional.linear(hidden, last.weight.flatten(1), last.bias)


class GlobalContextBlock(nn.Module):
    """EDAFormer's block with a 1x1 convolution and global context where its attention was.

    ``x = x + GC(W norm1(x))``, then ``x = x + FFN(norm2(x))``: the context stands in front of the
    residual addition, as GCNet places it, and the feed-forward's depthwise convolution sees
    neighbours.

    Args:
        dim: Channels.
        hidden: Width of the feed-forward.
        ratio: Width of the bottleneck as a share of `dim`.
    """

    def __init__(self, dim: int, hidden: int, ratio: float = 0.25) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.project = nn.Linear(dim, dim)
        self.context = GlobalContext(dim, ratio)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = FeedForward(dim, hidden, hidden_relu=True)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        grid: Grid = (image.shape[2], image.shape[3])
        tokens = to_tokens(image)
        mixed = self.context(to_map(self.project(self.norm1(tokens)), grid))
        tokens = tokens + to_tokens(mixed)
        return to_map(tokens + self.mlp(self.norm2(tokens), grid), grid)
