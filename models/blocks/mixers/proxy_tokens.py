"""Qihoo-T2X's block without its diffusion: proxies talk, every token listens (arXiv 2409.04005).

On tokens x of a grid in windows, with four proxies p per window:

    p = means over the window's tokens of one row parity and one column parity
    p = p + MHA(LN p)                               among all proxies
    x = x + MHA(LN x, LN p)                         starts at zero
    x = x + W-MHA(LN x);  x = x + shifted W-MHA(LN x)     the second starts at zero
    x = x + MLP(LN x)

So a window's proxy is a dilated mean, not that of a quarter; ``proxies="first"`` takes the top left
2x2 tokens. Between parts that only the shift brings together, the published port adds -1, not minus
infinity; so does this one. The three reads are three calls of the local-global operator.

What differs: known through a vendor's port, as the paper's own release has no code; the paper draws
a random token of each window as its proxy, which no static graph can. Text attention and the
modulation by the timestep are left out.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

from prunus.models.layers.local_global.index import AttentionIndex, grid_windows, shifted_windows
from prunus.models.layers.mlp import Mlp
from prunus.models.layers.token_block import Attention
from prunus.runtime.errors import UsageError, nearest

Proxies = Literal["mean", "first"]
_APART = -1.0  # between parts of a shifted window


class ProxyTokenBlock(nn.Module):
    """Proxy attention, window attention, shifted window attention and MLP.

    Args:
        dim: Channels.
        heads: Attention heads.
        hidden: Width of the MLP.
        grid: Rows and columns of tokens.
        window: Rows and columns of a window, even; divide the grid.
        proxies: How the four of a window are made.

    Raises:
        UsageError: windows that do not divide the grid or are odd, heads that do not divide.
    """

    members: Tensor

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int,
        grid: tuple[int, int],
        window: tuple[int, int],
        *,
        proxies: Proxies = "mean",
    ) -> None:
        super().__init__()
        known = list(get_args(Proxies))
        if proxies not in known:
            raise UsageError(
                f"Unknown proxies '{proxies}'{nearest(proxies, known)}.",
                f"Choose one of {', '.join(known)}.",
            )
        if window[0] % 2 or window[1] % 2:
            raise UsageError(f"Got windows of {window}; expected even sides for four proxies.")
        windows = grid_windows(grid, window)
        half = (window[0] // 2, window[1] // 2)
        self.plain = AttentionIndex(windows)
        self.moved = AttentionIndex(shifted_windows(grid, window, half, _APART))
        self.norms = nn.ModuleList(nn.LayerNorm(dim, eps=1e-6) for _ in range(6))
        self.among, self.listen = Attention(dim, heads), Attention(dim, heads)
        self.near, self.shifted = Attention(dim, heads), Attention(dim, heads)
        self.mlp = Mlp(dim, hidden)
        for quiet in (self.listen.proj, self.shifted.proj):
            nn.init.zeros_(quiet.weight)
            nn.init.zeros_(quiet.bias)
        cut = windows.q_index.reshape(-1, half[0], 2, half[1], 2)
        if proxies == "first":
            cut = cut[:, :1, :, :1]
        members = cut.permute(0, 2, 4, 1, 3).reshape(windows.windows * 4, -1)
        self.register_buffer("members", members, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, N, C) to the same shape."""
        one, two, three, four, five, six = self.norms
        picked = tokens.index_select(1, self.members.reshape(-1))
        proxies = picked.unflatten(1, tuple(self.members.shape)).mean(dim=2)
        normed = one(proxies)
        proxies = proxies + self.among(normed, normed, None)
        tokens = tokens + self.listen(two(tokens), three(proxies), None)
        normed = four(tokens)
        tokens = tokens + self.near(normed, normed, self.plain)
        normed = five(tokens)
        tokens = tokens + self.shifted(normed, normed, self.moved)
        out: Tensor = tokens + self.mlp(six(tokens))
        return out
