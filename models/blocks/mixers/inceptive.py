"""Inceptive Transformer's mixer on a sequence: convolutions of several widths, then attention that
weighs the tokens (arXiv 2505.20496).

    h = x + concat over kernels of ReLU(Conv1d x)       C / kernels channels each, 'same' padding
    y = h + MHA(LN h)

For audio frames, key points over time, or words; it stands on top of an encoder.

What differs: the kernel sizes could not be confirmed; 1, 3, 5 and 7 are our choice, as are the
ReLU, the even split of channels, and the pre-norm residual of the attention.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from prunus.models.layers.token_block import Attention
from prunus.runtime.errors import UsageError


class InceptiveMixer(nn.Module):
    """Several 1-D convolutions side by side, then self-attention.

    Args:
        dim: Channels; a multiple of the number of kernels.
        heads: Attention heads.
        kernels: Widths of the convolutions, odd.

    Raises:
        UsageError: even kernels, or channels that they do not share evenly.
    """

    def __init__(self, dim: int, heads: int, kernels: Sequence[int] = (1, 3, 5, 7)) -> None:
        super().__init__()
        if not kernels or any(k < 1 or k % 2 == 0 for k in kernels) or dim % len(kernels):
            raise UsageError(
                f"Got kernels {tuple(kernels)} for {dim} channels; expected odd widths, whose "
                "number divides the channels."
            )
        self.branches = nn.ModuleList(
            nn.Conv1d(dim, dim // len(kernels), k, padding=k // 2) for k in kernels
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, T, C) to the same shape."""
        line = tokens.transpose(1, 2)
        near = torch.cat([torch.relu(branch(line)) for branch in self.branches], dim=1)
        tokens = tokens + near.transpose(1, 2)
        normed = self.norm(tokens)
        out: Tensor = tokens + self.attn(normed, normed, None)
        return out
