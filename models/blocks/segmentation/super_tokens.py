"""Super-token attention of SViT (arXiv 2211.11167, section 3.2), one iteration.

The map is cut into cells; each pixel belongs softly to the 3x3 super tokens around its cell.
Attention runs among super tokens only, and its result goes back over the same soft membership.

    S0 = mean of each cell                                  U(S) = 3x3 neighbours, zero outside
    Q  = softmax_9(x . U(S0) * C^-0.5)
    S  = sum of x Q over the pixels of 9 cells / (sum of Q + 1e-12)
    x' = Q U(MHSA(S))

Neighbours outside the map are zero vectors that do enter the softmax (with logit 0). `qkv` holds
query, key and value of one head after the other, as the published code does. With cells of one
pixel the module is plain attention.

What differs: the published code gathers and spreads with one-hot (transposed) convolutions; here
both are one pad and nine slices, which compute the same and leave no convolution behind.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.models.blocks.segmentation.checks import divides
from prunus.models.segmentation.efa import Grid

_OFFSETS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
_TINY = 1e-12  # below float16's smallest number: the division has to stay float32


class SuperTokenAttention(nn.Module):
    """Attention over super tokens.

    Args:
        dim: Channels C.
        heads: Attention heads among super tokens; divides C.
        grid: Rows and columns of the map.
        cell: Side of a cell in pixels; divides the grid.
        qkv_bias: Bias of the query, key and value convolution.

    Raises:
        UsageError: heads or cell do not divide.
    """

    def __init__(
        self, dim: int, heads: int, grid: Grid, cell: int, *, qkv_bias: bool = True
    ) -> None:
        super().__init__()
        divides("heads", heads, "channels", dim)
        for side in grid:
            divides("a cell side", cell, "map side", side)
        self.heads, self.cell = heads, cell
        self.coarse: Grid = (grid[0] // cell, grid[1] // cell)
        self.scale = dim**-0.5
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=qkv_bias)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) float to the same shape."""
        if self.cell == 1:
            return self._attend(x)
        pixels = self._cells(x)  # (B, M, hw, C)
        first = pixels.mean(dim=2).unflatten(1, self.coarse)
        logits = torch.matmul(pixels, _neighbours(first).transpose(2, 3)) * self.scale
        member = logits.softmax(dim=3)  # (B, M, hw, 9)
        spread = self._attend(self._gather(pixels, member))
        return self._uncut(torch.matmul(member, _neighbours(spread)))

    def _gather(self, pixels: Tensor, member: Tensor) -> Tensor:
        """Return super tokens (B, rows, columns, C): means of pixels by membership."""
        counted = functional.pad(pixels, (0, 1), value=1.0)  # one more channel: the sum of Q
        parts = torch.matmul(member.transpose(2, 3), counted)  # (B, M, 9, C + 1)
        sums = _fold(parts.unflatten(1, self.coarse))
        return sums[..., :-1] / (sums[..., -1:] + _TINY)

    def _attend(self, tokens: Tensor) -> Tensor:
        """Plain attention over all tokens of (B, rows, columns, C)."""
        batch, rows, columns, dim = tokens.shape
        each = self.qkv(tokens.permute(0, 3, 1, 2)).reshape(batch, self.heads, -1, rows * columns)
        q, k, v = each.transpose(2, 3).split(dim // self.heads, dim=3)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        image = mixed.transpose(2, 3).reshape(batch, dim, rows, columns)
        out: Tensor = self.proj(image).permute(0, 2, 3, 1)
        return out

    def _cells(self, x: Tensor) -> Tensor:
        rows, columns = self.coarse
        cut = x.reshape(x.shape[0], rows, self.cell, columns, self.cell, x.shape[3])
        return cut.transpose(2, 3).reshape(x.shape[0], rows * columns, -1, x.shape[3])

    def _uncut(self, pixels: Tensor) -> Tensor:
        rows, columns = self.coarse
        cut = pixels.reshape(pixels.shape[0], rows, columns, self.cell, self.cell, pixels.shape[3])
        joined = cut.transpose(2, 3)
        return joined.reshape(pixels.shape[0], rows * self.cell, columns * self.cell, -1)


def _neighbours(tokens: Tensor) -> Tensor:
    """Return (B, M, 9, C): the 3x3 neighbourhoods of (B, rows, columns, C), zero outside."""
    rows, columns = tokens.shape[1], tokens.shape[2]
    padded = functional.pad(tokens, (0, 0, 1, 1, 1, 1))
    views = [padded[:, 1 + y : 1 + y + rows, 1 + x : 1 + x + columns] for y, x in _OFFSETS]
    return torch.stack(views, dim=3).flatten(1, 2)


def _fold(parts: Tensor) -> Tensor:
    """Sum (B, rows, columns, 9, C) over senders: token (y, x) receives part k of (y, x) - k."""
    rows, columns = parts.shape[1], parts.shape[2]
    padded = functional.pad(parts, (0, 0, 0, 0, 1, 1, 1, 1))
    total: Tensor | None = None
    for k, (y, x) in enumerate(_OFFSETS):
        part = padded[:, 1 - y : 1 - y + rows, 1 - x : 1 - x + columns, k]
        total = part if total is None else total + part
    assert total is not None  # nine offsets
    return total


class SuperTokenFeedForward(nn.Module):
    """1x1, GELU, plus a depthwise 3x3 of itself, 1x1."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.conv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.fc2 = nn.Conv2d(hidden, dim, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        hidden = functional.gelu(self.fc1(image))
        out: Tensor = self.fc2(hidden + self.conv(hidden))
        return out


class SuperTokenBlock(nn.Module):
    """``x += dwconv3(x)``; ``x += STA(LN(x))``; ``x += FFN(BN(x))``.

    Args:
        dim: Channels.
        heads: Attention heads.
        hidden: Width of the feed-forward.
        grid: Rows and columns of the map.
        cell: Side of a cell in pixels; 1 for plain attention.
    """

    def __init__(self, dim: int, heads: int, hidden: int, grid: Grid, cell: int) -> None:
        super().__init__()
        self.position = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = SuperTokenAttention(dim, heads, grid, cell)
        self.norm2 = nn.BatchNorm2d(dim)
        self.mlp = SuperTokenFeedForward(dim, hidden)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        image = image + self.position(image)
        image = image + self.attn(self.norm1(image.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        out: Tensor = image + self.mlp(self.norm2(image))
        return out
