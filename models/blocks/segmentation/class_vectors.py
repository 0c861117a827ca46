"""Classes as an input: class vectors steer the encoder, one mask per class (arXiv 2304.06212).

ClsCLIP replaces the class token of a few early layers by a projected text vector of one class, so
that patches attend to what is looked for, and decodes one mask:

    i <  N1        z = Layer_i([image's class token ; patches])
    N1 <= i < N2   z = Layer_i([L_i(T) ; patches])              only L_i and the decoder are new
    i >= N2        as before

An engine built this way has no fixed classes: another vocabulary is another input.

What differs, since EDAFormer has no class token: in the steered blocks the class vector, projected
and normed as a token of the sequence would be, is one more key and value beside the pooled ones.
Blocks before N1 see the image alone and run once; from N1 on everything runs once per class. The
published method is described only in outline (no code), so numbers of layers are configurable and
no figure of the paper is claimed. With N1 = 4 and three steered blocks the place in the network is
that of the paper's best setting, layers 2 to 4 of 12.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.models.blocks.segmentation.deployed import StaticDecoder
from prunus.models.layers.local_global.attention import global_attention
from prunus.models.segmentation.edaformer import Decoder, EDAFormerConfig, Encoder
from prunus.models.segmentation.efa import Block, Grid, to_map
from prunus.models.segmentation.static import StaticAttention
from prunus.runtime.errors import UsageError

VECTOR = 512  # width of CLIP's joint space
STEERED_STAGE = 3
STEERED_BLOCKS = 3


def steered(block: Block, tokens: Tensor, grid: Grid, vector: Tensor) -> Tensor:
    """Run an encoder block whose keys include a class token.

    Args:
        block: A block of EDAFormer's encoder.
        tokens: (K, N, C) tokens, one set per class.
        grid: Rows and columns of the tokens.
        vector: (K, 1, C) projected class vectors.

    Returns:
        (K, N, C).
    """
    attn = block.attn.attention if isinstance(block.attn, StaticAttention) else block.attn
    normed = block.norm1(tokens)
    # The pooled keys pass a 1x1 convolution; the class token passes the same matrix.
    key = functional.linear(block.norm1(vector), attn.sr.weight.flatten(1), attn.sr.bias)
    keys = torch.cat((key, attn.keys(normed, grid)), dim=1)
    tokens = tokens + attn.proj(global_attention(normed, keys, keys, num_heads=attn.heads))
    out: Tensor = tokens + block.mlp(block.norm2(tokens), grid)
    return out


class ClassVectorNetwork(nn.Module):
    """EDAFormer with classes as an input.

    Args:
        config: Sizes; its number of classes is not used.
        blocks: Steered blocks, the first ones of stage 3.
        width: Width of a class vector.

    Raises:
        UsageError: more steered blocks than the stage has, or none.
    """

    def __init__(
        self, config: EDAFormerConfig, *, blocks: int = STEERED_BLOCKS, width: int = VECTOR
    ) -> None:
        super().__init__()
        depth, dim = config.depths[STEERED_STAGE - 1], config.channels[STEERED_STAGE - 1]
        if not 1 <= blocks <= depth:
            raise UsageError(f"Got {blocks} steered blocks; expected 1 to {depth}.")
        self.config = config
        self.backbone = Encoder(config)
        self.project = nn.ModuleList(nn.Linear(width, dim) for _ in range(blocks))
        self.decode_head: Decoder | StaticDecoder = Decoder(replace(config, classes=1))

    def forward(self, images: Tensor, vectors: Tensor) -> Tensor:
        """Map one image and the wanted classes to a mask of each.

        Args:
            images: (1, 3, H, W) float32, RGB, ImageNet-normalised.
            vectors: (K, width) float32 class vectors.

        Returns:
            (1, K, ceil(H / 8), ceil(W / 8)) float32 mask logits.
        """
        count = vectors.shape[0]
        maps: list[Tensor] = []
        image = images
        for stage in (1, 2, 3, 4):
            tokens, grid = self.backbone.get_submodule(f"patch_embed{stage}")(image)
            blocks = cast("list[Block]", list(self._blocks(stage)))
            if stage == STEERED_STAGE:
                tokens = tokens.expand(count, -1, -1)
                for layer, block in zip(self.project, blocks, strict=False):
                    tokens = steered(block, tokens, grid, layer(vectors).unsqueeze(1))
                blocks = blocks[len(self.project) :]
            for block in blocks:
                tokens = block(tokens, grid)
            image = to_map(self.backbone.get_submodule(f"norm{stage}")(tokens), grid)
            maps.append(image)
        head = self.decode_head
        logits = head(maps) if isinstance(head, StaticDecoder) else _decode(head, maps)
        return logits.transpose(0, 1)

    def _blocks(self, stage: int) -> nn.ModuleList:
        return cast(nn.ModuleList, self.backbone.get_submodule(f"block{stage}"))


def _decode(head: Decoder, maps: list[Tensor]) -> Tensor:
    """Join the branches as published; that at stride 8 knows no class and runs once."""
    c8 = head.branch(8, maps[1])
    size = (c8.shape[2], c8.shape[3])
    wide = [
        functional.interpolate(
            head.branch(stride, image), size=size, mode="bilinear", align_corners=False
        )
        for stride, image in ((32, maps[3]), (16, maps[2]))
    ]
    joined = torch.cat((*wide, c8.expand(wide[0].shape[0], -1, -1, -1)), dim=1)
    logits: Tensor = head.linear_pred(head.linear_fuse(joined))
    return logits
