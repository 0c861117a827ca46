"""A pre-norm block with layer scale whose queries and keys may come from different tokens.

    y = x + g1 * MHA(LN x, LN keys)        y + g2 * MLP(LN y)

One layer norm serves queries and keys. Parameter names follow STViT-R's `layers.py` (arXiv
2303.08810: `norm1`, `attn.{q,kv,proj}`, `layer_scale_1`, ...).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunus.models.layers.local_global.attention import (
    global_attention,
    joint_attention,
    window_attention,
)
from prunus.models.layers.local_global.checks import check_heads
from prunus.models.layers.local_global.index import AttentionIndex, WindowTables
from prunus.models.layers.mlp import Mlp

_SCALE = 1e-5  # of a new residual branch


class Attention(nn.Module):
    """Projections of queries from one set of tokens and of keys and values from another.

    Args:
        dim: Channels of the queries.
        heads: Attention heads.
        seen: Channels of the keys; None: the queries'.

    Raises:
        UsageError: heads that do not divide the channels.
    """

    def __init__(self, dim: int, heads: int, seen: int | None = None) -> None:
        super().__init__()
        check_heads(dim, heads)
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(seen or dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, keys: Tensor, windows: AttentionIndex | None) -> Tensor:
        """Map queries (B, N, C) and keys (B, M, S) to (B, N, C); windows restrict who sees whom."""
        k, v = self.kv(keys).chunk(2, dim=2)
        q = self.q(queries)
        if windows is None:
            mixed = global_attention(q, k, v, num_heads=self.heads)
        else:
            mixed = window_attention(q, k, v, windows, num_heads=self.heads)
        out: Tensor = self.proj(mixed)
        return out

    def joint(self, own: Tensor, around: Tensor, index: AttentionIndex) -> Tensor:
        """Let each window's tokens see themselves and the window's patch in one softmax.

        Args:
            own: (B, S, C) semantic tokens; `index.q_index` groups them by window.
            around: (B, N, C) tokens from which `index.kv_index` picks patches.
            index: The windows.

        Returns:
            (B, S, C).
        """
        q = self.q(own)
        k, v = self.kv(around).chunk(2, dim=2)
        groups = index.q_index
        by_window = own.index_select(1, groups.reshape(-1)).unflatten(1, tuple(groups.shape))
        own_k, own_v = self.kv(by_window).chunk(2, dim=3)
        mixed = joint_attention(q, k, v, own_k, own_v, index, num_heads=self.heads)
        out: Tensor = self.proj(mixed)
        return out


class TokenBlock(nn.Module):
    """Attention and MLP with layer scale; queries and keys may come from different tokens.

    Args:
        dim: Channels.
        heads: Attention heads.
        hidden: Width of the MLP.
        windows: Windows of self attention; None: everybody sees every key.
        scale: Where both layer scales start; 0: the block starts as the identity.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int,
        windows: WindowTables | None = None,
        *,
        scale: float = _SCALE,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, hidden)
        self.layer_scale_1 = nn.Parameter(torch.full((dim,), scale))
        self.layer_scale_2 = nn.Parameter(torch.full((dim,), scale))
        self.windows = None if windows is None else AttentionIndex(windows)

    def forward(self, tokens: Tensor, keys: Tensor | None = None) -> Tensor:
        """Map queries (B, N, C) to the same shape; keys (B, M, C), or None for the tokens."""
        queries = self.norm1(tokens)
        seen = queries if keys is None else self.norm1(keys)
        tokens = tokens + self.layer_scale_1 * self.attn(queries, seen, self.windows)
        return self.finish(tokens)

    def finish(self, tokens: Tensor) -> Tensor:
        """Run the second half: ``y + g2 * MLP(LN y)``."""
        out: Tensor = tokens + self.layer_scale_2 * self.mlp(self.norm2(tokens))
        return out
