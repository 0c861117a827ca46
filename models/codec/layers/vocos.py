"""The Vocos decoder (arXiv 2306.00814) with WavTokenizer's additions (arXiv 2408.16532).

Added by WavTokenizer in front of the ConvNeXt blocks: residual blocks with group norms and one
self-attention over all frames. Layer norms have one row of scale and shift per "bandwidth".

`valid` masks frames at the end of a fixed-length input. With it, the result on the valid frames is
that of the shorter input: convolutions see zeros behind the end, as their padding would be;
group norms and attention leave invalid frames out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.models.codec.layers.istft import InverseStft

EPSILON = 1e-6  # of every norm in here
_LOG_100 = 4.605170185988092
_MASKED = -1e9
Norm = nn.Module


class FrameGroupNorm(nn.GroupNorm):
    """Group norm over channels and all valid frames."""

    def __init__(self, dim: int) -> None:
        super().__init__(32, dim, eps=EPSILON)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Normalise (B, C, L); `valid` is (B, 1, L) or None."""
        if valid is None:
            return super().forward(x)
        batch, dim, length = x.shape
        mask = valid.unsqueeze(1)
        groups = x.view(batch, self.num_groups, dim // self.num_groups, length)
        count = mask.sum(dim=(2, 3), keepdim=True) * (dim // self.num_groups)
        mean = (groups * mask).sum(dim=(2, 3), keepdim=True) / count
        centred = (groups - mean) * mask
        variance = centred.pow(2).sum(dim=(2, 3), keepdim=True) / count
        normed = (centred / torch.sqrt(variance + self.eps)).view(batch, dim, length)
        return normed * self.weight.view(1, -1, 1) + self.bias.view(1, -1, 1)


class AdaptiveLayerNorm(nn.Module):
    """Layer norm over channels whose scale and shift are a row of a table."""

    def __init__(self, rows: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.scale = nn.Embedding(rows, dim)
        self.shift = nn.Embedding(rows, dim)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, row: int) -> Tensor:
        """Normalise (B, L, C)."""
        normed = functional.layer_norm(x, (self.dim,), eps=EPSILON)
        return normed * self.scale.weight[row] + self.shift.weight[row]

    def folded(self, row: int) -> RowLayerNorm:
        """Return the norm with this row alone."""
        plain = RowLayerNorm(self.dim, eps=EPSILON)
        plain.weight = nn.Parameter(self.scale.weight[row].detach().clone())
        plain.bias = nn.Parameter(self.shift.weight[row].detach().clone())
        return plain


class RowLayerNorm(nn.LayerNorm):
    """An `AdaptiveLayerNorm` of which one row is left."""

    def forward(self, x: Tensor, row: int = 0) -> Tensor:
        """Normalise (B, L, C); the row was chosen when the table was folded."""
        return super().forward(x)


class ResnetBlock(nn.Module):
    """``x + conv2(swish(norm2(conv1(swish(norm1(x))))))``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1 = FrameGroupNorm(dim)
        self.conv1 = nn.Conv1d(dim, dim, 3, padding=1)
        self.norm2 = FrameGroupNorm(dim)
        self.dropout = nn.Dropout(0.1)
        self.conv2 = nn.Conv1d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Map (B, C, L) to the same shape."""
        h = self.conv1(masked(functional.silu(self.norm1(x, valid)), valid))
        h = self.dropout(masked(functional.silu(self.norm2(h, valid)), valid))
        out: Tensor = x + self.conv2(h)
        return out


class FrameAttention(nn.Module):
    """Self-attention of one head over all frames, without positions."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = FrameGroupNorm(dim)
        self.q = nn.Conv1d(dim, dim, 1)
        self.k = nn.Conv1d(dim, dim, 1)
        self.v = nn.Conv1d(dim, dim, 1)
        self.proj_out = nn.Conv1d(dim, dim, 1)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Map (B, C, L) to the same shape."""
        h = self.norm(x, valid)
        q, k, v = self.q(h), self.k(h), self.v(h)
        scores = torch.matmul(q.transpose(1, 2) * q.shape[1] ** -0.5, k)
        if valid is not None:
            scores = scores + (1.0 - valid) * _MASKED
        mixed = torch.matmul(v, scores.softmax(dim=-1).transpose(1, 2))
        out: Tensor = x + self.proj_out(mixed)
        return out


class ConvNextBlock(nn.Module):
    """Depthwise convolution, norm, two linear layers with GELU, layer scale, residual."""

    def __init__(self, dim: int, hidden: int, rows: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(dim, dim, 7, padding=3, groups=dim)
        self.norm: Norm = AdaptiveLayerNorm(rows, dim)
        self.pwconv1 = nn.Linear(dim, hidden)
        self.pwconv2 = nn.Linear(hidden, dim)
        self.gamma = nn.Parameter(torch.full((dim,), 1.0 / 12.0))

    def forward(self, x: Tensor, row: int = 0, valid: Tensor | None = None) -> Tensor:
        """Map (B, C, L) to the same shape."""
        h = self.norm(self.dwconv(masked(x, valid)).transpose(1, 2), row)
        h = self.pwconv2(functional.gelu(self.pwconv1(h)))
        out: Tensor = x + (self.gamma * h).transpose(1, 2)
        return out


class VocosBackbone(nn.Module):
    """Codebook features -> frame features.

    Args:
        inputs: Channels that enter.
        dim: Channels inside.
        hidden: Width between the linear layers of a block.
        blocks: ConvNeXt blocks.
        rows: Rows of the adaptive norms.
    """

    def __init__(self, inputs: int, dim: int, hidden: int, blocks: int, rows: int) -> None:
        super().__init__()
        self.embed = nn.Conv1d(inputs, dim, 7, padding=3)
        self.pos_net = nn.ModuleList(
            [
                ResnetBlock(dim), ResnetBlock(dim), FrameAttention(dim),
                ResnetBlock(dim), ResnetBlock(dim), FrameGroupNorm(dim),
            ]
        )  # fmt: skip
        self.norm: Norm = AdaptiveLayerNorm(rows, dim)
        self.convnext = nn.ModuleList(ConvNextBlock(dim, hidden, rows) for _ in range(blocks))
        self.final_layer_norm = nn.LayerNorm(dim, eps=EPSILON)

    def forward(self, x: Tensor, row: int = 0, valid: Tensor | None = None) -> Tensor:
        """Map (B, inputs, L) to (B, L, dim); `valid` is (B, 1, L) or None."""
        x = self.embed(masked(x, valid))
        for layer in self.pos_net:
            x = layer(x, valid)
        x = self.norm(x.transpose(1, 2), row).transpose(1, 2)
        for block in self.convnext:
            x = block(x, row, valid)
        out: Tensor = self.final_layer_norm(x.transpose(1, 2))
        return out


class SpectrumHead(nn.Module):
    """Magnitude and phase of each frame, then the inverse transform (arXiv 2306.00814, 3.2)."""

    def __init__(self, dim: int, size: int, hop: int) -> None:
        super().__init__()
        self.out = nn.Linear(dim, size + 2)
        self.istft = InverseStft(size, hop)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Map (B, L, dim) to (B, L * hop) samples."""
        magnitude, phase = self.out(x).transpose(1, 2).chunk(2, dim=1)
        # min(exp(m), 100), without the overflow of exp in half precision.
        magnitude = magnitude.clamp(max=_LOG_100).exp()
        spectrum = torch.cat((magnitude * phase.cos(), magnitude * phase.sin()), dim=1)
        out: Tensor = self.istft(spectrum, valid)
        return out


def masked(x: Tensor, valid: Tensor | None) -> Tensor:
    """Return (B, C, L) with invalid frames set to zero."""
    return x if valid is None else x * valid


def fold_rows(network: nn.Module, row: int) -> nn.Module:
    """Replace every adaptive norm inside by a plain one with this row, in place."""
    for name, child in network.named_children():
        if isinstance(child, AdaptiveLayerNorm):
            setattr(network, name, child.folded(row))
        else:
            fold_rows(child, row)
    return network
