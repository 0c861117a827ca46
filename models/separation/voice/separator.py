"""Dolphin's separator: a U over time whose levels all attend over the same coarse tokens.

Dolphin (arXiv 2509.23610), of the family of TDANet (arXiv 2209.15200) and SepReformer
(arXiv 2406.05983); applied once, without iteration. Maps are (B, C, T) throughout.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from prunus.models.separation.channels_first import GlobalNorm, depthwise
from prunus.models.separation.config import DolphinConfig
from prunus.models.separation.voice.feed_forward import FeedForward
from prunus.models.separation.voice.global_block import GlobalBlock, SelfAttention
from prunus.models.separation.voice.local_block import LocalBlock
from prunus.models.separation.voice.relative_positions import RelativePositions
from prunus.models.separation.voice.resample import average_pool
from prunus.models.separation.voice.top_down import TopDown


class DownSample(nn.Module):
    """GELU(GN(dw5, stride 2))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down_conv = depthwise(channels, 5, stride=2)
        self.GN = GlobalNorm(channels, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T) to (B, C, T / 2)."""
        return functional.gelu(self.GN(self.down_conv(x)))


class BlockStack(nn.Module):
    """Pairs of a global and a local block, named g_block_1, l_block_1, g_block_2, ..."""

    def __init__(self, config: DolphinConfig, pairs: int) -> None:
        super().__init__()
        self.pairs = pairs
        for k in range(1, pairs + 1):
            wide = GlobalBlock(config.channels, config.heads, config.expansion)
            near = LocalBlock(config.channels, config.local_kernel, config.expansion)
            self.add_module(f"g_block_{k}", wide)
            self.add_module(f"l_block_{k}", near)

    def blocks(self) -> Iterator[tuple[GlobalBlock, LocalBlock]]:
        """Yield the pairs in order."""
        for k in range(1, self.pairs + 1):
            wide, near = getattr(self, f"g_block_{k}"), getattr(self, f"l_block_{k}")
            yield cast(GlobalBlock, wide), cast(LocalBlock, near)

    def run_blocks(self, x: Tensor, positions: Tensor, tokens: int) -> Tensor:
        """Map (B, C, T) to the same shape."""
        for wide, near in self.blocks():
            x = near(wide(x, positions, tokens))
        return x


class EncoderStage(BlockStack):
    """Blocks at one length, and the way down to half of it."""

    def __init__(self, config: DolphinConfig) -> None:
        super().__init__(config, config.encoder_blocks)
        self.downconv = DownSample(config.channels)

    def forward(self, x: Tensor, positions: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
        """Return the skip map (B, C, T) and the next level's input (B, C, T / 2)."""
        skip = self.run_blocks(x, positions, tokens)
        return skip, self.downconv(skip)


class DecoderStage(BlockStack):
    """Blocks at one length."""

    def __init__(self, config: DolphinConfig) -> None:
        super().__init__(config, config.decoder_blocks)

    def forward(self, x: Tensor, positions: Tensor, tokens: int) -> Tensor:
        """Map (B, C, T) to the same shape."""
        return self.run_blocks(x, positions, tokens)


class Separator(nn.Module):
    """From the fused map of all voices to the map of one."""

    def __init__(self, config: DolphinConfig) -> None:
        super().__init__()
        levels, channels = range(config.levels), config.channels
        self.config = config
        self.pos_emb = RelativePositions(channels // config.heads, config.max_positions)
        self.pos_emb.form = config.positions
        self.enc_stages = nn.ModuleList(EncoderStage(config) for _ in levels)
        self.bottleneck_G = nn.ModuleList(
            [SelfAttention(channels, config.heads), FeedForward(channels, config.expansion)]
        )
        self.loc_glo_fus = nn.ModuleList(TopDown(channels, GlobalNorm) for _ in levels)
        self.simple_fusion = nn.ModuleList(TopDown(channels, GlobalNorm) for _ in levels)
        self.dec_stages = nn.ModuleList(DecoderStage(config) for _ in levels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T) to (B, C, T padded to whole tokens); the caller cuts."""
        block = self.config.block
        x = functional.pad(x, (0, -x.shape[-1] % block))
        tokens = x.shape[-1] // block
        positions = self.pos_emb(tokens, self.config.token_step)
        skips, halved = [], []
        for encode in self.enc_stages:
            skip, x = encode(x, positions, tokens)
            skips.append(skip)
            halved.append(x)
        coarse = self.bottleneck(halved)
        levels = [fuse(s, coarse) for fuse, s in zip(self.loc_glo_fus, skips, strict=True)]
        steps = zip(self.simple_fusion, self.dec_stages, reversed(levels), strict=True)
        for fuse, decode, level in steps:
            x = decode(fuse(level, x), positions, tokens)
        return x

    def bottleneck(self, maps: list[Tensor]) -> Tensor:
        """Return (B, C, 2n) built from what each level handed down, (B, C, T/2) to (B, C, n)."""
        length = 2 * maps[-1].shape[-1]
        total = average_pool(maps[0], length)
        for x in maps[1:]:
            total = total + average_pool(x, length)
        attend, feed = self.bottleneck_G
        out: Tensor = feed(attend(total))  # neither positions nor a residual here
        return out
