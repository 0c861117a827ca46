"""EDAFormer rewritten for a graph of one input size; every rewrite is exact and can be left out.

What differs from `edaformer`:
* **early join**: a 1x1 convolution commutes with bilinear resizing, so each branch passes its
  share of the join before it is enlarged: up(W4 c4) + up(W3 c3) + W2 c2, batch norm folded in;
* **padded hidden widths**: T's feed-forwards are 121, 243, 486 and 972 wide; zero rows up to the
  next multiple of 8 change nothing, since ReLU(0) = GELU(0) = 0, and fit the kernels;
* **attention as one operator**: `local_global_attention` in its global mode, keys and values one
  tensor;
* **channels last**: tokens are put on their grid before they are transposed, see there;
* feed-forwards run on the map: the narrow tokens are turned round, not the wide hidden layer.
Pooling by 1 is left out in every form, and so is the classifier that is never called.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.models.layers.local_global.attention import global_attention
from prunus.models.segmentation import channels_last
from prunus.models.segmentation.channels_last import GridBlock, GridEmbedding, norm_of_sum
from prunus.models.segmentation.edaformer import (
    BRANCHES,
    STAGES,
    Decoder,
    EDAFormer,
    PatchEmbedding,
)
from prunus.models.segmentation.efa import (
    Block,
    EmbeddingFreeAttention,
    FeedForward,
    Grid,
    to_map,
    to_tokens,
)

WIDTH_STEP = 8  # channels that vector and tensor-core kernels take at once


@dataclass(frozen=True, slots=True)
class Rewrites:
    """Which rewrites to make.

    Attributes:
        early_join: Join the decoder's branches before enlarging them.
        padded_hidden: Pad hidden widths to multiples of 8.
        attention_node: Attention as the operator `prunus::local_global_attention`.
        channels_last: Put tokens on their grid before they are transposed into maps.
    """

    early_join: bool = True
    padded_hidden: bool = True
    attention_node: bool = True
    channels_last: bool = True


LITERAL = Rewrites(False, False, False, False)


class StaticAttention(nn.Module):
    """Embedding-free attention through the local-global operator."""

    def __init__(self, attention: EmbeddingFreeAttention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Map normed tokens (B, N, C) on a grid to (B, N, C)."""
        own = self.attention
        keys = own.keys(tokens, grid)
        out: Tensor = own.proj(global_attention(tokens, keys, keys, num_heads=own.heads))
        return out


class StaticFeedForward(nn.Module):
    """The feed-forward on the map, its linear layers as 1x1 convolutions of a padded width."""

    def __init__(self, mlp: FeedForward, *, padded: bool) -> None:
        super().__init__()
        hidden = mlp.fc1.weight.shape[0]
        width = -(-hidden // WIDTH_STEP) * WIDTH_STEP if padded else hidden
        more = width - hidden
        self.fc1 = _conv(functional.pad(mlp.fc1.weight.detach(), (0, 0, 0, more)), mlp.fc1.bias)
        self.dwconv = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.fc2 = _conv(functional.pad(mlp.fc2.weight.detach(), (0, more)), mlp.fc2.bias)
        with torch.no_grad():
            source = mlp.dwconv.dwconv
            self.dwconv.weight.copy_(functional.pad(source.weight, (0, 0, 0, 0, 0, 0, 0, more)))
            if source.bias is not None and self.dwconv.bias is not None:
                self.dwconv.bias.copy_(functional.pad(source.bias, (0, more)))
        self.hidden_relu = mlp.hidden_relu

    def forward(self, tokens: Tensor, grid: Grid | None = None) -> Tensor:
        """Map (B, N, C) on a grid to (B, N, C), or without a grid (B, C, H, W) to (B, C, H, W)."""
        hidden = self.fc1(tokens if grid is None else to_map(tokens, grid))
        if self.hidden_relu:
            hidden = functional.relu(hidden)
        out: Tensor = self.fc2(functional.gelu(self.dwconv(hidden)))
        return out if grid is None else to_tokens(out)


def _conv(weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """Return a 1x1 convolution of a matrix (out, in) and a bias that may be shorter than out."""
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=bias is not None)
    with torch.no_grad():
        conv.weight.copy_(weight[:, :, None, None])
        if bias is not None and conv.bias is not None:
            conv.bias.copy_(functional.pad(bias, (0, weight.shape[0] - bias.shape[0])))
    return conv


def _static_block(block: Block, rewrites: Rewrites) -> nn.Module:
    """Return a block with its parts rewritten; norms are shared."""
    mlp = StaticFeedForward(block.mlp, padded=rewrites.padded_hidden)
    if rewrites.channels_last:
        return GridBlock(block, mlp, node=rewrites.attention_node)
    twin = Block.__new__(Block)
    nn.Module.__init__(twin)
    twin.norm1, twin.norm2 = block.norm1, block.norm2
    twin.add_module("attn", StaticAttention(block.attn) if rewrites.attention_node else block.attn)
    twin.add_module("mlp", mlp)
    return twin


class EarlyJoin(nn.Module):
    """The decoder's join, each branch's share of it before the branch is enlarged."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        join = decoder.linear_fuse
        norm = join.bn
        assert norm.running_var is not None and norm.running_mean is not None  # built with them
        # BN(W x) = s W x + (b - s m),  s = w / sqrt(v + eps)
        scale = norm.weight * torch.rsqrt(norm.running_var.double() + norm.eps).float()
        weight = (join.conv.weight[:, :, 0, 0] * scale[:, None]).detach()
        bias = (norm.bias - scale * norm.running_mean).detach()
        widths = [_channels(decoder.get_submodule(names[0])) for names in BRANCHES.values()]
        at32, at16, at8 = weight.split(widths, dim=1)
        self.at32, self.at16, self.at8 = _conv(at32, None), _conv(at16, None), _conv(at8, bias)

    def forward(self, branches: list[Tensor]) -> Tensor:
        """Map branches at strides 32, 16 and 8 to the joined map (B, D, H / 8, W / 8)."""
        c32, c16, c8 = branches
        size = (c8.shape[2], c8.shape[3])
        joined = self.at8(c8) + _enlarge(self.at16(c16), size) + _enlarge(self.at32(c32), size)
        return functional.relu(joined)


class LateJoin(nn.Module):
    """The decoder's join as published: enlarge, concatenate, convolve."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.linear_fuse = decoder.linear_fuse

    def forward(self, branches: list[Tensor]) -> Tensor:
        """Map branches at strides 32, 16 and 8 to the joined map (B, D, H / 8, W / 8)."""
        size = (branches[2].shape[2], branches[2].shape[3])
        out: Tensor = self.linear_fuse(torch.cat([_enlarge(b, size) for b in branches], dim=1))
        return out


def _channels(block: nn.Module) -> int:
    assert isinstance(block, Block)  # for the type checker: the decoder is built of them
    return block.norm1.weight.shape[0]


def _enlarge(image: Tensor, size: Grid) -> Tensor:
    # Fixed sizes, not factors: a map of 19 rows may stand over one of 10.
    if (image.shape[2], image.shape[3]) == size:
        return image
    return functional.interpolate(image, size=size, mode="bilinear", align_corners=False)


class StaticEDAFormer(nn.Module):
    """The same function as `EDAFormer`, in a form for static graphs; parameters are copied.

    Args:
        network: The network, in evaluation mode.
        rewrites: What to rewrite.
    """

    def __init__(self, network: EDAFormer, rewrites: Rewrites | None = None) -> None:
        super().__init__()
        rewrites = rewrites or Rewrites()
        self.config, self.on_grid = network.config, rewrites.channels_last
        on_grid = self.on_grid
        backbone, decoder = network.backbone, network.decode_head
        for stage in STAGES:
            blocks = backbone.get_submodule(f"block{stage}").children()
            embed = cast(PatchEmbedding, backbone.get_submodule(f"patch_embed{stage}"))
            self.add_module(f"patch_embed{stage}", GridEmbedding(embed) if on_grid else embed)
            self.add_module(f"block{stage}", _static_blocks(blocks, rewrites))
            self.add_module(f"norm{stage}", backbone.get_submodule(f"norm{stage}"))
        for stride, names in BRANCHES.items():
            own = [decoder.get_submodule(name) for name in names]
            self.add_module(f"branch{stride}", _static_blocks(own, rewrites))
        self.join = EarlyJoin(decoder) if rewrites.early_join else LateJoin(decoder)
        self.classify = decoder.linear_pred

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (B, 3, H, W) to logits (B, classes, H / 8, W / 8)."""
        maps: dict[int, tuple[Tensor, Grid]] = {}
        image = images
        for stage in STAGES:
            tokens, grid = self.get_submodule(f"patch_embed{stage}")(image)
            tokens = self._blocks(f"block{stage}", tokens, grid)
            norm = cast(nn.LayerNorm, self.get_submodule(f"norm{stage}"))
            tokens = norm_of_sum(norm, tokens) if self.on_grid else norm(tokens)
            maps[stage] = tokens, grid
            if stage != STAGES[-1]:
                image = self._map(tokens, grid)
        branches = [
            self._map(self._blocks(f"branch{stride}", *maps[stage]), maps[stage][1])
            for stride, stage in ((32, 4), (16, 3), (8, 2))
        ]
        logits: Tensor = self.classify(self.join(branches))
        return logits

    def _blocks(self, name: str, tokens: Tensor, grid: Grid) -> Tensor:
        for block in self.get_submodule(name).children():
            tokens = block(tokens, grid)
        return tokens

    def _map(self, tokens: Tensor, grid: Grid) -> Tensor:
        return channels_last.to_map(tokens, grid) if self.on_grid else to_map(tokens, grid)


def _static_blocks(blocks: Iterable[nn.Module], rewrites: Rewrites) -> nn.ModuleList:
    return nn.ModuleList(_static_block(cast(Block, block), rewrites) for block in blocks)
