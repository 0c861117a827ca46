"""FIT's interleaved stage: groups of tokens work alone, latents among all (arXiv 2305.12689).

On tokens x (N in t groups) and latents l (m per group, of their own width), by a string of layers
such as ``(2)4(2)4(2)``:

    (k)   k local layers: tokens within their group
          l = l + MHA(LN l, LN x) within a group        before the global layers
    k     k global layers: all t m latents
          x = x + MHA(LN x, LN l) within a group        after them

Each of these is one call of the local-global operator with a table: windows of n queries and n
keys, of m and n, of n and m. With n near N^(1/3) the cost is O(N^(4/3)).

What differs: groups are any partition given as a table, not a reshape; latents are a learned table;
layers are `TokenBlock`s, whose layer scales start at 1 (the published layers have none).
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from prunus.models.layers.local_global.index import AttentionIndex, WindowTables
from prunus.models.layers.token_block import Attention, TokenBlock
from prunus.runtime.errors import UsageError

_LAYERS = re.compile(r"\(\d+\)(\d+\(\d+\))*")


class Exchange(nn.Module):
    """``x + MHA(LN x, LN keys)`` between tokens of two widths, within groups; no MLP.

    Args:
        dim: Channels of the queries.
        seen: Channels of the keys.
        heads: Attention heads.
        groups: Which queries see which keys.
    """

    def __init__(self, dim: int, seen: int, heads: int, groups: WindowTables) -> None:
        super().__init__()
        self.norm, self.norm_seen = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(seen, eps=1e-6)
        self.attn = Attention(dim, heads, seen)
        self.groups = AttentionIndex(groups)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Map queries (B, N, C) and keys (B, M, S) to (B, N, C)."""
        out: Tensor = queries + self.attn(self.norm(queries), self.norm_seen(keys), self.groups)
        return out


class FitStage(nn.Module):
    """Interleaved local and global layers.

    Args:
        dim: Channels of tokens.
        latent_dim: Channels of latents.
        heads: Attention heads, of both.
        groups: Partition of the tokens whose windows read themselves, e.g. `grid_windows` or
            `chunks`.
        latents: Latents per group.
        layers: Numbers of local layers in brackets, of global ones between them.
        ratio: Hidden width of the MLPs in multiples of the channels.

    Raises:
        UsageError: a string of layers that cannot be read, heads that do not divide, or groups
            that read other tokens than their own.
    """

    def __init__(
        self,
        dim: int,
        latent_dim: int,
        heads: int,
        groups: WindowTables,
        latents: int,
        *,
        layers: str = "(2)4(2)",
        ratio: int = 4,
    ) -> None:
        super().__init__()
        if not _LAYERS.fullmatch(layers):
            raise UsageError(
                f"Cannot read the layers '{layers}'.", "For example: (2)4(2), or (2)4(2)4(2)."
            )
        if groups.mask is not None or not torch.equal(groups.q_index, groups.kv_index):
            raise UsageError(
                "Groups of FIT read their own tokens; got a partition with a mask or other keys.",
                "Build it with grid_windows or chunks.",
            )
        if latents < 1:
            raise UsageError(f"Got {latents} latents per group; expected 1 or more.")
        own = torch.arange(groups.windows * latents).reshape(-1, latents)
        up = WindowTables(own, groups.q_index, groups.keys)  # latents look at tokens
        down = WindowTables(groups.q_index, own, own.numel())
        self.table = nn.Parameter(0.02 * torch.randn(1, own.numel(), latent_dim))
        counts = [int(word) for word in re.findall(r"\d+", layers)]
        self.local = nn.ModuleList(
            _layers(dim, heads, ratio, count, groups) for count in counts[0::2]
        )
        self.among = nn.ModuleList(
            _layers(latent_dim, heads, ratio, count, None) for count in counts[1::2]
        )
        cycles = len(self.among)
        self.read = nn.ModuleList(Exchange(latent_dim, dim, heads, up) for _ in range(cycles))
        self.write = nn.ModuleList(Exchange(dim, latent_dim, heads, down) for _ in range(cycles))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Map tokens (B, N, C) to tokens of that shape and latents (B, t m, D)."""
        latents = self.table.expand(tokens.shape[0], -1, -1)
        tokens = self.local[0](tokens)
        for among, read, write, local in zip(
            self.among, self.read, self.write, self.local[1:], strict=True
        ):
            latents = among(read(latents, tokens))
            tokens = local(write(tokens, latents))
        return tokens, latents


def _layers(
    dim: int, heads: int, ratio: int, count: int, groups: WindowTables | None
) -> nn.Sequential:
    return nn.Sequential(
        *(TokenBlock(dim, heads, ratio * dim, groups, scale=1.0) for _ in range(count))
    )
