"""ProxyV's sandwich: a heavy block on few proxies, a light MLP for all tokens (arXiv 2505.15816).

    p = means of the cells of x, or softmax(Q (W_k x)^T / sqrt C) x with learned Q
    p = Block(queries p, keys [p ; x])              any block of the network
    x = RMSNorm(MLP([W_i x ; up(W_c p)]) + x)       up: a cell's proxy, or softmax over proxies

Proxies alone are queries; all tokens stay, and are keys of the heavy block. The light MLP has no
biases and SiLU, as published.

What differs: the published code runs the layers of a language model on [text, proxies]; here a
`TokenBlock` stands between. Proxies are means of cells, which is what bilinear halving gives; text
is left out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunus.models.layers.local_global.index import grid_windows
from prunus.models.layers.token_block import TokenBlock
from prunus.runtime.errors import UsageError


class ProxySandwich(nn.Module):
    """Reduce, process, hand back.

    Args:
        dim: Channels.
        heads: Attention heads of the heavy block.
        hidden: Width of the heavy block's MLP.
        light: Width of the light MLP.
        grid: Rows and columns of tokens; for `cell`.
        cell: Rows and columns of the tokens that share a proxy; divide the grid.
        queries: Learned proxies instead; 0: none.

    Raises:
        UsageError: cells that do not divide the grid, or neither or both kinds of proxies.
    """

    cells: Tensor
    owner: Tensor

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int,
        light: int,
        *,
        grid: tuple[int, int] | None = None,
        cell: tuple[int, int] | None = None,
        queries: int = 0,
    ) -> None:
        super().__init__()
        if (grid is None or cell is None) == (queries < 1):
            raise UsageError(
                f"Got cells {cell} of a grid {grid} and {queries} learned proxies; expected a grid "
                "with cells, or a number of queries."
            )
        self.queries = nn.Parameter(torch.randn(queries, dim) / (2 * dim**0.5)) if queries else None
        if grid is not None and cell is not None and not queries:
            tables = grid_windows(grid, cell)
            owner = torch.arange(tables.windows).repeat_interleave(tables.q_index.shape[1])
            self.register_buffer("cells", tables.q_index, persistent=False)
            self.register_buffer("owner", owner[tables.o_index], persistent=False)
        else:
            self.key = nn.Linear(dim, dim, bias=False)
        self.block = TokenBlock(dim, heads, hidden, scale=1.0)
        self.context = nn.Linear(dim, light, bias=False)
        self.inner = nn.Linear(dim, light, bias=False)
        self.fc1 = nn.Linear(2 * light, light, bias=False)
        self.fc2 = nn.Linear(light, dim, bias=False)
        self.norm = nn.RMSNorm(dim, eps=1e-6)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Map tokens (B, N, C) to tokens of that shape and the proxies (B, P, C)."""
        if self.queries is None:
            shape = tuple(self.cells.shape)
            picked = tokens.index_select(1, self.cells.reshape(-1)).unflatten(1, shape)
            proxies, splat = picked.mean(dim=2), None
        else:
            scaled = self.queries * self.queries.shape[1] ** -0.5
            logits = scaled @ self.key(tokens).transpose(1, 2)  # (B, P, N)
            proxies = torch.softmax(logits, dim=2) @ tokens
            splat = torch.softmax(logits.transpose(1, 2), dim=2)
        proxies = self.block(proxies, torch.cat((proxies, tokens), dim=1))
        # The published order: learned proxies are splatted before their projection, cells after.
        told = (
            self.context(proxies).index_select(1, self.owner)
            if splat is None
            else self.context(splat @ proxies)
        )
        hidden = self.fc1(torch.cat((self.inner(tokens), told), dim=2))
        return self.norm(self.fc2(nn.functional.silu(hidden)) + tokens), proxies
