"""EDAFormer-T with other blocks: same widths, depths, patch embeddings and decoder.

`build_sibling("svit")` replaces the attention blocks of the four encoder stages by those of another
design; everything else is EDAFormer's. So latencies compare blocks on the same maps. Weights are
random: no published checkpoint has this shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunus.models.blocks.segmentation.class_vectors import ClassVectorNetwork
from prunus.models.blocks.segmentation.dual_tokens import DualTokenStage
from prunus.models.blocks.segmentation.gcnet import GlobalContextBlock
from prunus.models.blocks.segmentation.mix_shift import KERNELS, MixShiftBlock
from prunus.models.blocks.segmentation.relay import RelayStage
from prunus.models.blocks.segmentation.semantic_tokens import SemanticStage, SwinStage
from prunus.models.blocks.segmentation.super_tokens import SuperTokenBlock
from prunus.models.layers.semantic_block import SAMPLES
from prunus.models.segmentation.edaformer import (
    STAGES,
    Decoder,
    EDAFormer,
    EDAFormerConfig,
    PatchEmbedding,
    edaformer_config,
)
from prunus.models.segmentation.efa import Grid, to_map, to_tokens
from prunus.models.segmentation.isr import ENCODER_STRIDES
from prunus.runtime.errors import UsageError, nearest

RATIO = 4  # hidden width of feed-forwards, in channels
MULTIPLE = 32  # input sides: the coarsest map is whole
_CELLS = (8, 4, 1, 1)  # super tokens
_WINDOW = 8  # largest window of Swin blocks and semantic tokens
_TILE = 16  # positions per relay tile, about
_TOKEN_STRIDE = 64  # pixels per side of a global token


class PlainStage(nn.Module):
    """Blocks from map to map; what earlier stages carried passes by."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, image: Tensor, carried: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Map (B, C, H, W) to the same shape."""
        for block in self.blocks:
            image = block(image)
        return image, carried


class SiblingNetwork(nn.Module):
    """Four stages of any blocks between EDAFormer's patch embeddings and decoder.

    Args:
        config: EDAFormer's sizes.
        stages: Four modules (map, carried) -> (map, carried).
    """

    def __init__(self, config: EDAFormerConfig, stages: list[nn.Module]) -> None:
        super().__init__()
        self.config = config
        before = (3, *config.channels)
        for k, stage in enumerate(STAGES):
            dim = config.channels[k]
            kernel, stride = (7, 4) if stage == 1 else (3, 2)
            self.add_module(f"patch_embed{stage}", PatchEmbedding(before[k], dim, kernel, stride))
            self.add_module(f"stage{stage}", stages[k])
            self.add_module(f"norm{stage}", nn.LayerNorm(dim, eps=1e-6))
        self.decode_head = Decoder(config)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (B, 3, H, W) to logits (B, classes, H / 8, W / 8)."""
        maps: list[Tensor] = []
        image, carried = images, None
        for stage in STAGES:
            tokens, grid = self.get_submodule(f"patch_embed{stage}")(image)
            image, carried = self.get_submodule(f"stage{stage}")(to_map(tokens, grid), carried)
            image = to_map(self.get_submodule(f"norm{stage}")(to_tokens(image)), grid)
            maps.append(image)
        logits: Tensor = self.decode_head(maps)
        return logits


@dataclass(frozen=True, slots=True)
class Sibling:
    """One row of the table.

    Attributes:
        title: What the block is, in words.
        paper: Its source.
        stages: (sizes, grids of the four maps) -> four stages; None: a network of its own.
    """

    title: str
    paper: str
    stages: Callable[[EDAFormerConfig, list[Grid]], list[nn.Module]] | None


def _gcnet(config: EDAFormerConfig, _grids: list[Grid]) -> list[nn.Module]:
    return [
        PlainStage(*(GlobalContextBlock(dim, int(dim * config.mlp_ratio)) for _ in range(depth)))
        for dim, depth in zip(config.channels, config.depths, strict=True)
    ]


def _svit(config: EDAFormerConfig, grids: list[Grid]) -> list[nn.Module]:
    return [
        PlainStage(
            *(
                SuperTokenBlock(dim, heads, RATIO * dim, grid, math.gcd(cell, *grid))
                for _ in range(depth)
            )
        )
        for dim, heads, depth, grid, cell in zip(
            config.channels, config.heads, config.depths, grids, _CELLS, strict=True
        )
    ]


def _stvit_r(config: EDAFormerConfig, grids: list[Grid]) -> list[nn.Module]:
    stages: list[nn.Module] = []
    for k, (dim, heads, depth, grid) in enumerate(
        zip(config.channels, config.heads, config.depths, grids, strict=True)
    ):
        window = max(w for w in range(1, _WINDOW + 1) if grid[0] % w == 0 and grid[1] % w == 0)
        if k == 2:  # as published: rounds of semantic tokens in the third stage only
            if window < SAMPLES:
                raise UsageError(
                    f"No window of {SAMPLES} to {_WINDOW} divides a map of {grid[0]}x{grid[1]}.",
                    "Choose an input whose sides are multiples of 64.",
                )
            rounds = max(round(depth / 6), 1)
            stage = SemanticStage(dim, heads, RATIO * dim, grid, window, rounds=rounds)
            stages.append(PlainStage(stage))
        else:
            stages.append(PlainStage(SwinStage(dim, heads, RATIO * dim, grid, window, depth=depth)))
    return stages


def _dual_tokens(config: EDAFormerConfig, grids: list[Grid]) -> list[nn.Module]:
    rows, columns = (side * ENCODER_STRIDES[0] // _TOKEN_STRIDE for side in grids[0])
    return [
        DualTokenStage(dim, before, heads, 2 * dim, grid=grid, small=(rows, columns), depth=depth)
        for dim, before, heads, depth, grid in zip(
            config.channels, (0, *config.channels), config.heads, config.depths, grids, strict=False
        )
    ]


def _mix_shift(config: EDAFormerConfig, _grids: list[Grid]) -> list[nn.Module]:
    return [
        PlainStage(*(MixShiftBlock(dim, RATIO * dim, kernels) for _ in range(depth)))
        for dim, depth, kernels in zip(config.channels, config.depths, KERNELS, strict=True)
    ]


def _relay(config: EDAFormerConfig, grids: list[Grid]) -> list[nn.Module]:
    return [
        PlainStage(
            RelayStage(
                dim, heads, RATIO * dim, grid=grid, depth=depth,
                tiles=(max(grid[0] // _TILE, 1), max(grid[1] // _TILE, 1)),
            )
        )
        for dim, heads, depth, grid in zip(
            config.channels, config.heads, config.depths, grids, strict=True
        )
    ]  # fmt: skip


SIBLINGS = {
    "edaformer": Sibling("embedding-free attention, the original", "arXiv 2407.17261", None),
    "gcnet": Sibling("global context", "arXiv 1904.11492", _gcnet),
    "svit": Sibling("super-token attention", "arXiv 2211.11167", _svit),
    "stvit-r": Sibling("semantic tokens with recovery", "arXiv 2303.08810", _stvit_r),
    "dualtoken": Sibling("local map and global tokens", "arXiv 2309.12424", _dual_tokens),
    "ms-mlp": Sibling("mix-shift, no attention", "arXiv 2202.06510", _mix_shift),
    "relayformer": Sibling("tiles and relay tokens", "arXiv 2508.09459", _relay),
    "clsclip": Sibling("class vectors as an input", "arXiv 2304.06212", None),
}


def build_sibling(
    name: str,
    *,
    size: tuple[int, int] = (512, 512),
    classes: int = 150,
    config: EDAFormerConfig | None = None,
    seed: int = 0,
) -> nn.Module:
    """Build an EDAFormer-T-sized network of another block, with random weights.

    Args:
        name: A key of `SIBLINGS`.
        size: Height and width of the input; most blocks are built for one size.
        classes: Classes of the decoder; ``clsclip`` gives one mask per class vector instead.
        config: Other sizes; None for EDAFormer-T's.
        seed: Same seed, same weights.

    Returns:
        Network in evaluation mode: images (B, 3, H, W) -> logits (B, classes, H / 8, W / 8);
        ``clsclip`` also takes class vectors (K, 512) and gives (1, K, H / 8, W / 8).

    Raises:
        UsageError: unknown name, or a size that the block cannot take.

    Example:
        >>> network = build_sibling("gcnet", size=(64, 64), classes=19)
        >>> network(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 19, 8, 8])
    """
    row = SIBLINGS.get(name)
    if row is None:
        raise UsageError(
            f"Unknown block '{name}'{nearest(name, list(SIBLINGS))}.",
            f"Choose one of {', '.join(SIBLINGS)}.",
        )
    if any(side < MULTIPLE or side % MULTIPLE for side in size):
        raise UsageError(
            f"Got an input of {size[0]}x{size[1]}; expected multiples of {MULTIPLE}.",
            f"Nearest: {'x'.join(str(max(round(s / MULTIPLE), 1) * MULTIPLE) for s in size)}.",
        )
    config = config or edaformer_config("t", classes=classes)
    grids: list[Grid] = [(size[0] // s, size[1] // s) for s in ENCODER_STRIDES]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module
        if name == "clsclip":
            network = ClassVectorNetwork(config)
        elif row.stages is None:
            network = EDAFormer(config)
        else:
            network = SiblingNetwork(config, row.stages(config, grids))
        _draw(network)
    return network.eval()


def _draw(network: nn.Module) -> None:
    """Draw weights that keep signals alive: constructors may zero or hide a branch."""
    with torch.no_grad():
        for name, value in network.named_parameters():
            last = name.rpartition(".")[2]
            if last.endswith(("_a", "_b")):
                value.normal_(std=0.1)
            elif last in {"table", "semantic_token2"}:
                value.normal_(std=0.2)
            elif value.dim() > 1 and value[0].numel() > 1:
                value.normal_(std=value[0].numel() ** -0.5)
            elif last == "bias":
                value.normal_(std=0.02)
            elif "scale" in last or last == "gamma":
                value.uniform_(0.2, 0.4)
            else:
                value.normal_(mean=1.0, std=0.1)
