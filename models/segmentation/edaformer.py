"""EDAFormer: embedding-free attention in the encoder and in the decoder (arXiv 2407.17261).

A four-stage encoder at strides 4 to 32, then three independent attention branches at strides 32,
16 and 8, joined by one 1x1 convolution and read by another. Parameter names, shapes and epsilons
are those of the published checkpoints (354 entries in T, 564 in B), the unused `conv_seg` included.

What differs:
* pooling sizes are constants of the network (`IsrSetting`), never computed from an input;
* stochastic depth and dropout are left out: the network is built for inference.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.models.segmentation.efa import (
    DECODER_FORM,
    ENCODER_FORM,
    Block,
    Grid,
    to_map,
    to_tokens,
)
from prunus.models.segmentation.isr import IsrSetting
from prunus.runtime.errors import UsageError, nearest

STAGES = (1, 2, 3, 4)
LOGIT_STRIDE = 8
_UNUSED_WIDTH = 128  # input channels of the classifier that the published decoder never calls


class _Size(NamedTuple):
    channels: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    mlp_ratio: float
    decoder_mlp_ratio: int
    embed_dim: int


_SIZES = {
    "t": _Size((32, 64, 128, 256), (2, 2, 10, 2), 3.8, 2, 128),
    "b": _Size((64, 128, 256, 512), (3, 3, 22, 3), 4.0, 1, 768),
}
_HEADS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class EDAFormerConfig:
    """Everything that fixes the network's shapes.

    Attributes:
        variant: ``t`` or ``b``.
        channels: Channels of the stages.
        depths: Blocks of the stages.
        heads: Attention heads of the stages.
        mlp_ratio: Hidden width of an encoder feed-forward, as a multiple of its channels.
        decoder_mlp_ratio: The same in the decoder.
        embed_dim: Channels after the decoder's branches are joined.
        classes: Number of classes.
        isr: Pooling at inference.
    """

    variant: str
    channels: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    mlp_ratio: float
    decoder_mlp_ratio: int
    embed_dim: int
    heads: tuple[int, int, int, int] = _HEADS
    classes: int = 150
    isr: IsrSetting = field(default_factory=IsrSetting)

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise UsageError(f"Got {self.classes} classes; expected at least 1.")
        if min(self.depths) < 1 or any(
            c % h for c, h in zip(self.channels, self.heads, strict=True)
        ):
            raise UsageError(
                f"Got {list(self.channels)} channels in {list(self.heads)} heads and "
                f"{list(self.depths)} blocks; expected whole heads and one block or more per stage."
            )


def edaformer_config(
    variant: str, *, classes: int = 150, isr: IsrSetting | None = None
) -> EDAFormerConfig:
    """Return the configuration of ``t`` or ``b``.

    Raises:
        UsageError: unknown variant, or no class.
    """
    size = _SIZES.get(variant.lower())
    if size is None:
        raise UsageError(
            f"Unknown EDAFormer variant '{variant}'{nearest(variant, list(_SIZES))}.",
            f"Choose one of {', '.join(_SIZES)}.",
        )
    return EDAFormerConfig(
        variant=variant.lower(),
        channels=size.channels,
        depths=size.depths,
        mlp_ratio=size.mlp_ratio,
        decoder_mlp_ratio=size.decoder_mlp_ratio,
        embed_dim=size.embed_dim,
        classes=classes,
        isr=isr or IsrSetting(),
    )


class PatchEmbedding(nn.Module):
    """Overlapping patches: strided convolution, then layer norm with epsilon 1e-5."""

    def __init__(self, channels_in: int, dim: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels_in, dim, kernel, stride=stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(dim, eps=1e-5)

    def forward(self, image: Tensor) -> tuple[Tensor, Grid]:
        """Map (B, C, H, W) to tokens (B, N, D) and their grid, ceil(H / stride) rows."""
        image = self.proj(image)
        return self.norm(to_tokens(image)), (image.shape[2], image.shape[3])


class Encoder(nn.Module):
    """Four stages; each ends in a layer norm whose map is its output and the next one's input."""

    def __init__(self, config: EDAFormerConfig) -> None:
        super().__init__()
        before = (3, *config.channels)
        for k, stage in enumerate(STAGES):
            dim, hidden = config.channels[k], int(config.channels[k] * config.mlp_ratio)
            kernel, stride = (7, 4) if stage == 1 else (3, 2)
            pooling = config.isr.encoder_pooling[k]
            blocks = nn.ModuleList(
                Block(dim, config.heads[k], hidden, pooling, ENCODER_FORM)
                for _ in range(config.depths[k])
            )
            self.add_module(f"patch_embed{stage}", PatchEmbedding(before[k], dim, kernel, stride))
            self.add_module(f"block{stage}", blocks)
            self.add_module(f"norm{stage}", nn.LayerNorm(dim, eps=1e-6))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map (B, 3, H, W) to four maps (B, C, ceil(H / s), ceil(W / s)), s = 4, 8, 16, 32."""
        maps = []
        for stage in STAGES:
            tokens, grid = self.get_submodule(f"patch_embed{stage}")(image)
            for block in self.get_submodule(f"block{stage}").children():
                tokens = block(tokens, grid)
            image = to_map(self.get_submodule(f"norm{stage}")(tokens), grid)
            maps.append(image)
        return maps


class JoinLayer(nn.Module):
    """1x1 convolution without a bias, batch norm, ReLU."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, dim, 1, bias=False)
        self.bn = nn.BatchNorm2d(dim, eps=1e-5)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, D, H, W)."""
        return functional.relu(self.bn(self.conv(image)))


# Branch blocks by stride, in the order in which they run; the names are the checkpoints'.
BRANCHES = {32: ("attn4", "attn44", "attn444"), 16: ("attn3", "attn33"), 8: ("attn2",)}


class Decoder(nn.Module):
    """Attention at strides 32, 16 and 8, each on its own; joined at stride 8."""

    def __init__(self, config: EDAFormerConfig) -> None:
        super().__init__()
        pooling = dict(zip((8, 16, 32), config.isr.decoder_pooling, strict=True))
        for k, (stride, names) in enumerate(BRANCHES.items()):
            dim, heads = config.channels[3 - k], config.heads[3 - k]
            hidden = dim * config.decoder_mlp_ratio
            for name in names:
                block = Block(dim, heads, hidden, pooling[stride], DECODER_FORM)
                self.add_module(name, block)
        self.linear_fuse = JoinLayer(sum(config.channels[1:]), config.embed_dim)
        self.linear_pred = nn.Conv2d(config.embed_dim, config.classes, 1)
        self.conv_seg = nn.Conv2d(_UNUSED_WIDTH, config.classes, 1)

    def branch(self, stride: int, image: Tensor) -> Tensor:
        """Run the blocks of one branch on its map (B, C, H, W)."""
        grid = (image.shape[2], image.shape[3])
        tokens = to_tokens(image)
        for name in BRANCHES[stride]:
            tokens = self.get_submodule(name)(tokens, grid)
        return to_map(tokens, grid)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map the encoder's four maps to logits (B, classes, ceil(H / 8), ceil(W / 8))."""
        branches = [self.branch(s, maps[k]) for s, k in ((32, 3), (16, 2), (8, 1))]
        size = branches[2].shape[2:]
        joined = torch.cat([_resize(b, size) for b in branches], dim=1)
        logits: Tensor = self.linear_pred(self.linear_fuse(joined))
        return logits


def _resize(image: Tensor, size: torch.Size) -> Tensor:
    if image.shape[2:] == size:
        return image
    return functional.interpolate(image, size=size, mode="bilinear", align_corners=False)


class EDAFormer(nn.Module):
    """The network: normalised images in, class logits at stride 8 out.

    Example:
        >>> network = EDAFormer(edaformer_config("t", classes=19)).eval()
        >>> network(torch.zeros(1, 3, 64, 96)).shape
        torch.Size([1, 19, 8, 12])
    """

    def __init__(self, config: EDAFormerConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Encoder(config)
        self.decode_head = Decoder(config)

    def forward(self, images: Tensor) -> Tensor:
        """Map images to logits.

        Args:
            images: (B, 3, H, W) float32, RGB, ImageNet-normalised.

        Returns:
            (B, classes, ceil(H / 8), ceil(W / 8)) float32.

        Raises:
            UsageError: a pooling window is larger than its map.
        """
        self.config.isr.check_size(images.shape[2], images.shape[3], drop_remainder=True)
        logits: Tensor = self.decode_head(self.backbone(images))
        return logits

    def with_isr(self, isr: IsrSetting) -> EDAFormer:
        """Return a network with another pooling that shares this one's parameters and buffers."""
        with torch.device("meta"):
            twin = EDAFormer(replace(self.config, isr=isr))
        twin.load_state_dict(self.state_dict(keep_vars=True), assign=True)
        return twin.train(self.training)


def resize_logits(logits: Tensor, height: int, width: int) -> Tensor:
    """Resize logits (B, classes, h, w) bilinearly to (B, classes, height, width)."""
    return _resize(logits, torch.Size((height, width)))
