"""DualToken-ViT's block: convolution for what is near, 49 tokens for the rest (arXiv 2309.12424).

Two streams pass through all stages, the map X and *position-aware global tokens* G, which lie on a
small grid (7x7 in the paper) and so keep their position:

    X_local  = X + PW2(GELU(PW1(LN(DWConv(X)))))            conv encoder, section 3.1
    X_ga     = MHSA(X_local, halved step by step down to G's grid)
    G'       = a * MLP(G) + (1 - a) * X_ga                  section 3.2
    X_global = MHA(query X_local, keys and values G')       broadcast
    X_out    = X_local + X_global, then x + FFN(x)          FFN gated by channel and by place

No code was published and the equations could be read only in part: the weight a (here constant,
0.5), the place of the MLP, kernel sizes, the halving convolution (depthwise 3x3), and the sum as
fusion are our reading. The gated feed-forward is LightViT's bi-dimensional attention
(arXiv 2207.05557, section 3.3). Parameter names are our own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.models.blocks.segmentation.checks import divides
from prunus.models.layers.local_global.attention import global_attention
from prunus.models.layers.mlp import Mlp
from prunus.models.segmentation.efa import Grid, to_map, to_tokens
from prunus.runtime.errors import UsageError

MIX = 0.5  # weight a of the carried tokens


class ConvEncoder(nn.Module):
    """A ConvNeXt block: depthwise convolution, layer norm, two pointwise layers, residual."""

    def __init__(self, dim: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, hidden)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        hidden = self.mlp(self.norm(self.dwconv(image).permute(0, 2, 3, 1)))
        out: Tensor = image + hidden.permute(0, 3, 1, 2)
        return out


def halvings(grid: Grid, small: Grid) -> int:
    """Return how often `grid` is halved to become `small`.

    Raises:
        UsageError: no number of halvings leads there.
    """
    steps, now = 0, grid
    while now != small:
        if now[0] % 2 or now[1] % 2 or now[0] <= small[0] or now[1] <= small[1]:
            raise UsageError(
                f"A map of {grid[0]}x{grid[1]} cannot be halved to {small[0]}x{small[1]}.",
                "Choose an input whose map is the global tokens' grid times a power of two.",
            )
        steps, now = steps + 1, (now[0] // 2, now[1] // 2)
    return steps


class SelfAttention(nn.Module):
    """Plain multi-head self attention on tokens (B, N, C)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        divides("heads", heads, "channels", dim)
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, N, C) to the same shape."""
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class GlobalTokens(nn.Module):
    """Aggregate the map into its global tokens and mix them with the carried ones.

    Args:
        dim: Channels.
        heads: Attention heads.
        steps: Halvings from the map to the tokens' grid.
        mix: Weight of the carried tokens.
    """

    def __init__(self, dim: int, heads: int, steps: int, mix: float = MIX) -> None:
        super().__init__()
        self.mix = mix
        self.down = nn.ModuleList(
            nn.Conv2d(dim, dim, 3, stride=2, padding=1, groups=dim) for _ in range(steps)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.attn = SelfAttention(dim, heads)
        self.mlp = Mlp(dim, 2 * dim)

    def forward(self, image: Tensor, carried: Tensor) -> Tensor:
        """Map a local map (B, C, H, W) and carried tokens (B, G, C) to new tokens (B, G, C)."""
        for conv in self.down:
            image = conv(image)
        gathered = self.attn(self.norm(to_tokens(image)))
        out: Tensor = self.mix * self.mlp(carried) + (1.0 - self.mix) * gathered
        return out


class GatedFeedForward(nn.Module):
    """MLP whose output is gated by channel and by place (LightViT's bi-dimensional attention).

    channel gate = sigmoid(W_c r),  r = GELU(W_g mean(LN x));
    place gate   = sigmoid(w_s [GELU(W_l LN x) ; r]);  y = x * channel gate * place gate
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        width = max(dim // 4, 1)
        self.mlp = Mlp(dim, hidden)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.global_reduce = nn.Linear(dim, width)
        self.local_reduce = nn.Linear(dim, width)
        self.channel_select = nn.Linear(width, dim)
        self.spatial_select = nn.Linear(2 * width, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, N, C) to the same shape."""
        out = self.mlp(tokens)
        normed = self.norm(out)
        whole = functional.gelu(self.global_reduce(normed.mean(dim=1, keepdim=True)))
        here = functional.gelu(self.local_reduce(normed))
        channel = self.channel_select(whole).sigmoid()
        both = torch.cat((here, whole.expand(-1, here.shape[1], -1)), dim=2)
        gated: Tensor = out * channel * self.spatial_select(both).sigmoid()
        return gated


class DualTokenBlock(nn.Module):
    """The block on both streams.

    Args:
        dim: Channels.
        heads: Attention heads.
        hidden: Width of the gated feed-forward; the conv encoder's is twice the channels.
        grid: Rows and columns of the map: the tokens' grid times a power of two.
        small: Rows and columns of the global tokens.
        kernel: Side of the conv encoder's depthwise kernel.
        mix: Weight of the carried tokens.

    Raises:
        UsageError: halving the map does not lead to the tokens' grid, or heads do not divide.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int,
        grid: Grid,
        small: Grid,
        *,
        kernel: int = 7,
        mix: float = MIX,
    ) -> None:
        super().__init__()
        divides("heads", heads, "channels", dim)
        self.heads = heads
        self.local = ConvEncoder(dim, 2 * dim, kernel)
        self.tokens = GlobalTokens(dim, heads, halvings(grid, small), mix)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = GatedFeedForward(dim, hidden)

    def forward(self, image: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, C, H, W) and global tokens (B, G, C) to the same shapes."""
        image = self.local(image)
        carried = self.tokens(image, carried)
        tokens = to_tokens(image)
        k, v = self.kv(carried).chunk(2, dim=2)
        spread = global_attention(self.q(self.norm1(tokens)), k, v, num_heads=self.heads)
        tokens = tokens + self.proj(spread)
        tokens = tokens + self.mlp(self.norm2(tokens))
        return to_map(tokens, (image.shape[2], image.shape[3])), carried


class DualTokenStage(nn.Module):
    """Blocks that carry global tokens; the first stage owns them, later ones widen them.

    Args:
        dim: Channels.
        before: Channels of the carried tokens; 0: this stage starts them from a learned table.
        heads: Attention heads.
        hidden: Width of the gated feed-forward.
        grid: Rows and columns of the map.
        small: Rows and columns of the global tokens.
        depth: Blocks.
    """

    def __init__(
        self, dim: int, before: int, heads: int, hidden: int, *, grid: Grid, small: Grid, depth: int
    ) -> None:
        super().__init__()
        if before:
            self.widen = nn.Linear(before, dim)
        else:
            self.table = nn.Parameter(0.02 * torch.randn(1, small[0] * small[1], dim))
        self.starts = before == 0
        self.blocks = nn.ModuleList(
            DualTokenBlock(dim, heads, hidden, grid, small) for _ in range(depth)
        )

    def forward(self, image: Tensor, carried: Tensor | None) -> tuple[Tensor, Tensor]:
        """Map (B, C, H, W) and tokens (B, G, before) or None to (B, C, H, W) and (B, G, C)."""
        if self.starts:
            tokens = self.table.expand(image.shape[0], -1, -1)
        elif carried is None:
            raise UsageError("A later stage got no global tokens; expected the former stage's.")
        else:
            tokens = self.widen(carried)
        for block in self.blocks:
            image, tokens = block(image, tokens)
        return image, tokens
