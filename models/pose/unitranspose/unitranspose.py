"""UniTransPose: a four-stage transformer whose windows talk to each other through joint tokens.

Follows the public description of Kinfu & Vidal, "Transformers with Joint Tokens and Local-Global
Attention for Efficient Human Pose Estimation" (arXiv 2503.00232): joint-aware global-local
attention, a sub-pixel convolution decoder, a second head that regresses coordinates, and a unified
skeleton of which any subset can be read. Layer sizes are not public; these are ours:

* four stages at strides 4 to 32, channels C, 2 C, 4 C, 8 C, between them 3x3 convolutions;
* windows of 8 x 6 tokens, which divide all four grids of a 256 x 192 crop: no padding, no shift;
* one code per row and column at the entrance of each stage;
* patch -> joint attention has a cheaper form in evaluation (`UniTransPose.absorb`);
* both heads live in one network; `config.head` says which one a call computes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.models.layers.local_global.index import AttentionIndex, grid_windows, identity_index
from prunus.models.pose.heads import RegressionHead
from prunus.models.pose.unitranspose.block import NORM_EPS, JaglBlock, JointUpdate
from prunus.models.pose.unitranspose.decoder import SubpixelDecoder, halve, stem
from prunus.runtime.errors import UsageError, nearest

Head = Literal["heatmap", "regression"]
STRIDES = (4, 8, 16, 32)
_DEPTHS = (2, 2, 6, 2)


@dataclass(frozen=True, slots=True)
class UniTransPoseConfig:
    """Everything that fixes the network's shapes.

    Attributes:
        variant: Name of the size.
        dim: C, channels of a token of the first stage; each stage doubles them.
        depths: Blocks of each stage.
        head_dim: Channels per attention head; must divide `dim`.
        decoder: Channels of the decoder.
        mlp_ratio: Hidden channels of the MLP in units of the token's.
        head: ``heatmap`` (accuracy) or ``regression`` (speed).
        joints: Joint tokens: the skeleton that the network knows.
        readout: Joints that come out, as indices of the skeleton in any order; None for all.
        window: Rows and columns of a window of tokens.
        height: Input height in pixels.
        width: Input width in pixels.
    """

    model: ClassVar[str] = "unitranspose"

    variant: str
    dim: int
    depths: tuple[int, ...] = _DEPTHS
    head_dim: int = 32
    decoder: int = 128
    mlp_ratio: int = 4
    head: Head = "heatmap"
    joints: int = 17
    readout: tuple[int, ...] | None = None
    window: tuple[int, int] = (8, 6)
    height: int = 256
    width: int = 192

    def __post_init__(self) -> None:
        if self.head not in get_args(Head):
            known = list(get_args(Head))
            raise UsageError(
                f"Unknown head '{self.head}'{nearest(self.head, known)}.",
                f"Choose one of {', '.join(known)}.",
            )
        if len(self.depths) != len(STRIDES) or min(self.depths) < 1:
            raise UsageError(
                f"Got the depths {self.depths}; expected {len(STRIDES)} stages of at least 1 block."
            )
        if self.dim < 1 or self.head_dim < 1 or self.dim % self.head_dim or self.dim % 2:
            raise UsageError(
                f"{self.dim} channels do not split into heads of {self.head_dim}.",
                "Choose an even number of channels that is a multiple of the head's.",
            )
        if min(self.decoder, self.mlp_ratio, self.joints) < 1:
            raise UsageError(
                f"Got {self.joints} joints, a decoder of {self.decoder} channels and an MLP of "
                f"{self.mlp_ratio} times the width; expected at least 1 of each."
            )
        self._check_readout()
        # Windows that divide the coarsest grid divide the finer ones too.
        high, wide = (size * STRIDES[-1] for size in self.window)
        if min(self.height, self.width) < 1 or self.height % high or self.width % wide:
            raise UsageError(
                f"Got an input of {self.height}x{self.width}; windows of {self.window[0]}x"
                f"{self.window[1]} tokens need a height that is a multiple of {high} and a width "
                f"that is a multiple of {wide}."
            )

    def _check_readout(self) -> None:
        chosen = self.readout
        if chosen is None:
            return
        inside = all(0 <= index < self.joints for index in chosen)
        if not chosen or not inside or len(set(chosen)) != len(chosen):
            raise UsageError(
                f"Got the joints {list(chosen)} to read; expected different numbers of "
                f"0..{self.joints - 1}, at least one."
            )

    def grid(self, stride: int) -> tuple[int, int]:
        """Return rows and columns of tokens at a stride."""
        return self.height // stride, self.width // stride

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(self.dim << stage for stage in range(len(STRIDES)))

    @property
    def outputs(self) -> int:
        """Number of joints that come out."""
        return self.joints if self.readout is None else len(self.readout)


_SIZES: dict[str, UniTransPoseConfig] = {
    "tiny": UniTransPoseConfig("tiny", 32, decoder=64),
    "tiny-light": UniTransPoseConfig(
        "tiny-light", 32, (2, 2, 4, 2), head_dim=16, decoder=64, mlp_ratio=3
    ),
    "small": UniTransPoseConfig("small", 64),
    "base": UniTransPoseConfig("base", 96),
    "base-deep": UniTransPoseConfig("base-deep", 96, (2, 2, 18, 2), decoder=192),
}
VARIANTS = tuple(_SIZES)


def unitranspose_config(
    variant: str,
    *,
    head: Head = "heatmap",
    joints: int = 17,
    readout: tuple[int, ...] | None = None,
) -> UniTransPoseConfig:
    """Return the configuration of one of `VARIANTS`.

    Args:
        variant: Size.
        head: ``heatmap`` or ``regression``.
        joints: Joint tokens.
        readout: Joints that come out; None for all.

    Raises:
        UsageError: unknown variant or head, or joints that cannot be.
    """
    if variant not in _SIZES:
        raise UsageError(
            f"Unknown UniTransPose variant '{variant}'{nearest(variant, list(VARIANTS))}.",
            f"Choose one of {', '.join(VARIANTS)}.",
        )
    return replace(_SIZES[variant], head=head, joints=joints, readout=readout)


class PositionCode(nn.Module):
    """A learned code per row and one per column, added to a map.

    Rows and columns apart take (H + W) C values, where one code per token takes H W C. Exported,
    their sum is one constant.
    """

    def __init__(self, channels: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(1, channels, grid[0], 1))
        self.columns = nn.Parameter(torch.zeros(1, channels, 1, grid[1]))
        for table in (self.rows, self.columns):
            nn.init.trunc_normal_(table, std=0.02)

    def forward(self, features: Tensor) -> Tensor:
        """Return the map (B, C, H, W) with its codes added."""
        return features + (self.rows + self.columns)


class Stage(nn.Module):
    """Blocks at one resolution and the tables that they share."""

    def __init__(self, config: UniTransPoseConfig, number: int) -> None:
        super().__init__()
        dim, grid = config.channels[number], config.grid(STRIDES[number])
        window = config.window[0] * config.window[1]
        self.windows = AttentionIndex(grid_windows(grid, config.window))
        self.whole = identity_index(grid[0] * grid[1])
        heads = dim // config.head_dim
        self.blocks = nn.ModuleList(
            JaglBlock(dim, heads, window, config.mlp_ratio) for _ in range(config.depths[number])
        )

    def forward(self, patches: Tensor, joints: Tensor) -> tuple[Tensor, Tensor]:
        """Return patches (B, N, C) and joint tokens (B, J, C) after the blocks."""
        for block in self.blocks:
            patches, joints = block(patches, joints, self.windows, self.whole)
        return patches, joints


class UniTransPose(nn.Module):
    """The network: crops in, heatmaps or coordinates out.

    Example:
        >>> network = UniTransPose(unitranspose_config("tiny")).eval()
        >>> network(torch.zeros(1, 3, 256, 192)).shape
        torch.Size([1, 17, 64, 48])
    """

    def __init__(self, config: UniTransPoseConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        self.joint_tokens = nn.Parameter(torch.zeros(1, config.joints, config.dim))
        # Step s leads into stage s: the stem into the first, a halving into each other one.
        self.steps = nn.ModuleList(
            stem(c) if number == 0 else halve(c // 2) for number, c in enumerate(channels)
        )
        self.positions = nn.ModuleList(
            PositionCode(c, config.grid(stride))
            for c, stride in zip(channels, STRIDES, strict=True)
        )
        self.joint_steps = nn.ModuleList(nn.Linear(c, 2 * c) for c in channels[:-1])
        self.stages = nn.ModuleList(Stage(config, number) for number in range(len(STRIDES)))
        self.decoder = SubpixelDecoder(channels, config.decoder)
        self.heatmap_head = nn.Conv2d(config.decoder, config.joints, 1)
        self.joint_norm = nn.LayerNorm(channels[-1], eps=NORM_EPS)
        self.regression_head = RegressionHead(channels[-1], config.joints, config.grid(STRIDES[-1]))
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.joint_tokens, std=0.02)
        nn.init.normal_(self.heatmap_head.weight, std=0.001)

    def absorb(self, on: bool) -> UniTransPose:
        """Switch the cheaper form of patch -> joint attention in evaluation; return the network.

        Args:
            on: False computes it as it is trained; see `JointUpdate`.
        """
        for module in self.modules():
            if isinstance(module, JointUpdate):
                module.absorb = on
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised crops to joints.

        Args:
            images: (B, 3, height, width) float32, RGB, ImageNet-normalised.

        Returns:
            With K the joints read: (B, K, height / 4, width / 4) heatmaps, or from the regression
            head (B, K, 4): x and y in 0..1 of the crop, and their standard deviations.
        """
        maps, joints = self.features(images)
        return self.heatmaps(maps) if self.config.head == "heatmap" else self.coordinates(joints)

    def features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the stages' maps (B, C_s, H / stride, W / stride) and joint tokens (B, J, 8 C)."""
        joints = self.joint_tokens.expand(images.shape[0], -1, -1)
        features, maps = images, list[Tensor]()
        for number, stage in enumerate(self.stages):
            if number:
                joints = self.joint_steps[number - 1](joints)
            features = self.positions[number](self.steps[number](features))
            patches, joints = stage(features.flatten(2).transpose(1, 2), joints)
            features = patches.transpose(1, 2).reshape(features.shape)
            maps.append(features)
        return maps, joints

    def heatmaps(self, maps: list[Tensor]) -> Tensor:
        """Decode the stages' maps to (B, K, height / 4, width / 4) heatmaps."""
        head, chosen = self.heatmap_head, self._chosen()
        weight, bias = head.weight, head.bias
        if chosen is not None and bias is not None:
            weight, bias = weight[chosen], bias[chosen]
        return functional.conv2d(self.decoder(maps), weight, bias)

    def coordinates(self, joints: Tensor) -> Tensor:
        """Map joint tokens (B, J, 8 C) to (B, K, 4): x, y and their spreads in 0..1 of the crop."""
        chosen = self._chosen()
        if chosen is not None:
            joints = joints.index_select(1, torch.tensor(chosen, device=joints.device))
        out: Tensor = self.regression_head(self.joint_norm(joints), None)
        return out

    def _chosen(self) -> list[int] | None:
        return None if self.config.readout is None else list(self.config.readout)
