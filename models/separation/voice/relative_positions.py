"""Scores of queries against learned vectors per distance, s[i, j] = q_i . p[i - j], in two forms.

``table`` gathers one vector per pair of tokens (n x n x d; what Dolphin's released code does).
``skew`` multiplies with the 2n - 1 distinct vectors and shears the result (Music Transformer,
arXiv 1809.04281): the constant shrinks from 16 MB to 64 kB at two seconds, at twice the products.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunus.models.separation.config import Positions


class RelativePositions(nn.Module):
    """Learned vectors for the distances -maximum .. maximum - 1, clamped beyond."""

    def __init__(self, dim: int, maximum: int) -> None:
        super().__init__()
        self.pe_k = nn.Embedding(2 * maximum, dim)
        self.maximum = maximum
        self.form: Positions = "table"

    def forward(self, tokens: int, step: int = 1) -> Tensor:
        """Return what `position_scores` needs for that many tokens, in the chosen form.

        Args:
            tokens: n.
            step: Distances of neighbours in trained tokens, for tokens coarser than these.

        Returns:
            (n, n, d), entry [i, j] for query i and key j; or (2n - 1, d) from the distance n - 1
            down to 1 - n.
        """
        if self.form == "skew":
            distance = torch.arange(tokens - 1, -tokens, -1)
        else:
            steps = torch.arange(tokens)
            distance = steps[:, None] - steps[None]
        index = (distance * step).clamp(-self.maximum, self.maximum - 1) + self.maximum
        out: Tensor = self.pe_k(index.to(self.pe_k.weight.device))
        return out


def position_scores(query: Tensor, positions: Tensor) -> Tensor:
    """Return (B, h, n, n): each query against the vector of its distance to each key.

    Args:
        query: (B, h, n, d).
        positions: What `RelativePositions` returned.
    """
    return _by_table(query, positions) if positions.dim() == 3 else _by_skew(query, positions)


def _by_table(query: Tensor, table: Tensor) -> Tensor:
    batch, heads, tokens, dim = query.shape
    rows = query.permute(2, 0, 1, 3).reshape(tokens, batch * heads, dim)
    scores = rows @ table.transpose(1, 2)
    return scores.permute(1, 0, 2).reshape(batch, heads, tokens, tokens)


def _by_skew(query: Tensor, vectors: Tensor) -> Tensor:
    batch, heads, tokens, _ = query.shape
    wide = query @ vectors.transpose(0, 1)
    # With one more column, dropping the first n - 1 values shifts row i left by n - 1 - i.
    flat = torch.cat((wide, wide[..., :1]), dim=-1).flatten(2)
    start, width = tokens - 1, 2 * tokens - 1
    shifted = flat[:, :, start : start + tokens * width]
    return shifted.reshape(batch, heads, tokens, width)[..., :tokens]
