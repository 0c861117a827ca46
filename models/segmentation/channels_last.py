"""EDAFormer's blocks with maps that are made of tokens, and tokens of maps, by one transpose.

The published form goes to and fro between tokens (B, N, C), for norms and products, and maps
(B, C, H, W), for convolutions: tokens are transposed to (B, C, N) and then cut into rows. Here they
are put on their grid first, (B, H, W, C), which moves nothing, and transposed then. No number
changes, but this is a transpose that runtimes know from networks with the channels last, and drop:
ONNX Runtime's convolutions read and write such maps while they block channels.

Kept as lists of tokens elsewhere: OpenVINO has a layer norm for three axes and takes one for four
apart, with which these networks need half as much time again.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from prunus.models.layers.local_global.attention import global_attention
from prunus.models.segmentation.edaformer import PatchEmbedding
from prunus.models.segmentation.efa import Block, EmbeddingFreeAttention, Grid


def to_map(tokens: Tensor, grid: Grid) -> Tensor:
    """Return tokens (B, H * W, C), row by row, as a map (B, C, H, W)."""
    batch, _, channels = tokens.shape
    return tokens.reshape(batch, *grid, channels).permute(0, 3, 1, 2)


def to_tokens(image: Tensor) -> Tensor:
    """Return a map (B, C, H, W) as tokens (B, H * W, C), row by row."""
    return image.permute(0, 2, 3, 1).flatten(1, 2)


def norm_of_sum(norm: nn.LayerNorm, tokens: Tensor) -> Tensor:
    """Norm tokens (B, N, C) that are a sum which nothing else reads.

    ONNX Runtime would make one node of the sum and the norm, which takes more than twice the time
    of the two: so the norm sees a list of all images' tokens, and the two do not touch.
    """
    out: Tensor = norm(tokens.flatten(0, 1))
    return out.reshape(tokens.shape)


class GridAttention(nn.Module):
    """Embedding-free attention.

    Args:
        attention: The published form, whose parameters are used.
        node: Attend through the operator `prunus::local_global_attention`.
    """

    def __init__(self, attention: EmbeddingFreeAttention, *, node: bool) -> None:
        super().__init__()
        self.attention, self.node = attention, node

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Map normed tokens (B, N, C) on a grid to (B, N, C)."""
        own = self.attention
        if self.node:
            keys = self._keys(tokens, grid)
            out: Tensor = own.proj(global_attention(tokens, keys, keys, num_heads=own.heads))
        else:
            out = own(tokens, grid)
        return out

    def _keys(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Return keys, which are the values too: (B, M, C)."""
        own, image = self.attention, to_map(tokens, grid)
        if own.pooling > 1:
            image = functional.avg_pool2d(image, own.pooling)
        keys: Tensor = to_tokens(own.sr(image))
        return functional.gelu(own.norm(keys)) if own.key_norm else keys


class GridBlock(nn.Module):
    """A block of the encoder or decoder; norms are shared with the published form.

    Args:
        block: The published form.
        mlp: Its feed-forward, rewritten: maps (B, C, H, W) to maps.
        node: Attend through the operator.
    """

    def __init__(self, block: Block, mlp: nn.Module, *, node: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.attn = GridAttention(block.attn, node=node)
        self.mlp = mlp

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Map (B, N, C) on a grid to (B, N, C)."""
        tokens = tokens + self.attn(self.norm1(tokens), grid)
        return tokens + to_tokens(self.mlp(to_map(self.norm2(tokens), grid)))


class GridEmbedding(nn.Module):
    """Overlapping patches; parameters are shared with the published form."""

    def __init__(self, embedding: PatchEmbedding) -> None:
        super().__init__()
        self.proj, self.norm = embedding.proj, embedding.norm

    def forward(self, image: Tensor) -> tuple[Tensor, Grid]:
        """Map (B, C, H, W) to tokens (B, N, D) and their grid, ceil(H / stride) rows."""
        image = self.proj(image)
        return self.norm(to_tokens(image)), (image.shape[2], image.shape[3])
