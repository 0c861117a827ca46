"""EViTPose: a plain ViT with joint tokens that rank the patches, most of which are dropped.

Follows Kinfu & Vidal, "Transformers with Joint Tokens and Local-Global Attention for Efficient
Human Pose Estimation" (arXiv 2503.00232) and its precursor (arXiv 2306.04225); sizes, heads and
parameter layout follow ViTPose (arXiv 2204.12484), the cut position follows PPT (arXiv 2209.08194).

What differs:
* the number of surviving patches is a constant of the network (the precursor keeps the union of
  each joint's best patches, whose size depends on the picture);
* dropped patches re-enter before the decoder with the features they had (`fill="carry"`);
* the position code has no class-token slot: it is folded into the patches' own;
* a sub-pixel head (1x1 convolutions + pixel shuffle) next to ViTPose's two heads.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.models.layers.mlp import Mlp
from prunus.models.pose.heads import Head, build_head
from prunus.models.pose.levels import evitpose_plan
from prunus.models.tokens.blocks.layouts import BlockLayout
from prunus.models.tokens.constant import ConstantSelection
from prunus.models.tokens.methods.control.average_pool import AveragePool
from prunus.models.tokens.plan import PruningPlan
from prunus.models.tokens.reducer import Attention as Attended
from prunus.models.tokens.reducer import Place, Reduced, Side, TokenReducer, put_tokens
from prunus.models.tokens.registry import build_reducer
from prunus.models.tokens.selection import SelectingReducer
from prunus.runtime.errors import UsageError, nearest

Fill = Literal["carry", "zero", "mask"]
Score = Literal["sum", "max", "strided", "pooled"]
# How a cut that the plan leaves to the network chooses its patches.
_METHODS: dict[str, str] = {
    "sum": "joint(combine=sum)", "max": "joint(combine=max)",
    "strided": "strided", "pooled": "average_pool",
}  # fmt: skip
PATCH = 16
# Channels, attention heads, blocks, head; dino*: small, with DINOv2's heads and first blocks.
_SIZES: dict[str, tuple[int, int, int, Head]] = {
    "tiny": (192, 3, 12, "subpixel"),
    "small": (384, 12, 12, "classic"),
    "base": (768, 12, 12, "classic"),
    "dino6": (384, 6, 6, "subpixel"),
    "dino8": (384, 6, 8, "subpixel"),
    "dino12": (384, 6, 12, "subpixel"),
}


@dataclass(frozen=True, slots=True)
class EViTPoseConfig:
    """Everything that fixes the network's shapes.

    Attributes:
        variant: Name of the size.
        dim: Channels of a token.
        heads: Attention heads; must divide `dim`.
        plan: Where patches are dropped.
        head: Decoder from features to joints.
        depth: Transformer blocks.
        joints: Joint tokens.
        fill: What a grid decoder sees where a patch was dropped.
        score: How the joints' attention is combined into one rank (``sum``, ``max``), or the same
            patches of every picture: evenly spaced ones (``strided``), means of cells (``pooled``).
        height: Input height in pixels.
        width: Input width in pixels.
    """

    model: ClassVar[str] = "evitpose"

    variant: str
    dim: int
    heads: int
    plan: PruningPlan
    head: Head
    depth: int = 12
    joints: int = 17
    fill: Fill = "carry"
    score: Score = "sum"
    height: int = 256
    width: int = 192

    def __post_init__(self) -> None:
        for name, value, known in (
            ("fill", self.fill, get_args(Fill)),
            ("score", self.score, get_args(Score)),
        ):
            if value not in known:
                choices = ", ".join(known)
                raise UsageError(
                    f"Unknown {name} '{value}'{nearest(value, list(known))}.",
                    f"Choose one of {choices}.",
                )
        if self.joints < 1 or self.depth < 1:
            raise UsageError(
                f"Got {self.joints} joints and {self.depth} blocks; expected at least 1 of each."
            )
        if self.heads < 1 or self.dim % self.heads:
            raise UsageError(f"{self.dim} channels do not split into {self.heads} heads.")
        if self.height % PATCH or self.width % PATCH or min(self.height, self.width) < PATCH:
            raise UsageError(
                f"Got an input of {self.height}x{self.width}; expected multiples of {PATCH}."
            )
        self.plan.check(self.patches, self.depth)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.height // PATCH, self.width // PATCH

    @property
    def patches(self) -> int:
        """Number of patches that enter."""
        return self.grid[0] * self.grid[1]


def evitpose_config(
    variant: str,
    level: str = "L0",
    *,
    head: Head | None = None,
    joints: int = 17,
    fill: Fill = "carry",
    score: Score = "sum",
) -> EViTPoseConfig:
    """Return the configuration of a size (``tiny``, ``small``, ``base``, ``dino8`` ...) at a level.

    Raises:
        UsageError: unknown variant or level.
    """
    if variant not in _SIZES:
        known = list(_SIZES)
        raise UsageError(
            f"Unknown EViTPose variant '{variant}'{nearest(variant, known)}.",
            f"Choose one of {', '.join(known)}.",
        )
    dim, heads, depth, default_head = _SIZES[variant]
    return EViTPoseConfig(
        variant=variant,
        dim=dim,
        heads=heads,
        plan=evitpose_plan(level, joints, depth),
        head=head or default_head,
        depth=depth,
        joints=joints,
        fill=fill,
        score=score,
    )


class Attention(nn.Module):
    """Multi-head self-attention that also hands out its queries and keys for ranking."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Attended]:
        """Return the output (B, L, C), and query, key and value (B, h, L, d) for ranking."""
        batch, length, dim = tokens.shape
        shape = (batch, length, self.heads, dim // self.heads)
        query, key, value = (
            part.reshape(shape).transpose(1, 2) for part in self.qkv(tokens).split(dim, dim=-1)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, length, dim))
        return out, Attended(query, key, value)


class Block(nn.Module):
    """Pre-norm transformer block whose two halves are called apart, with the cut in between."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(
        self, tokens: Tensor, cut: TokenReducer | None = None
    ) -> tuple[Tensor, Selection | None]:
        """Return tokens (B, L or J + K, C) and, when `cut` is given, what it selected."""
        mixed, attended = self.attn(self.norm1(tokens))
        tokens = tokens + mixed
        selection = None
        if cut is not None:
            reduced = cut(tokens, Side({cut.place.block: attended}))
            selection = Selection(cut, tokens[:, cut.place.special :], reduced)
            tokens = reduced.x
        return tokens + self.mlp(self.norm2(tokens)), selection


class Selection(NamedTuple):
    """What a cut did: the patches (B, N, C) it saw, and what it made of them."""

    cut: TokenReducer
    patches: Tensor
    reduced: Reduced

    @property
    def kept(self) -> Tensor | None:
        """Indices (B, K) of the kept patches, None where patches are mixed."""
        return self.reduced.kept


class EViTPose(nn.Module):
    """The network: crops in, heatmaps (or coordinates) out.

    Example:
        >>> network = EViTPose(evitpose_config("tiny", "L1")).eval()
        >>> network(torch.zeros(1, 3, 256, 192)).shape
        torch.Size([1, 17, 64, 48])
    """

    def __init__(self, config: EViTPoseConfig) -> None:
        super().__init__()
        dim = config.dim
        self.config = config
        # Padding 2 is ViTPose's: the first patch starts two pixels outside the crop.
        self.patch_embed = nn.Conv2d(3, dim, PATCH, stride=PATCH, padding=2)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.patches, dim))
        self.joint_tokens = nn.Parameter(torch.zeros(1, config.joints, dim))
        if config.fill == "mask":
            self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.ModuleList(Block(dim, config.heads) for _ in range(config.depth))
        self.last_norm = nn.LayerNorm(dim, eps=1e-6)
        self.keypoint_head = build_head(config.head, dim, config.joints, config.grid)
        self.cuts = self._build_cuts(config)
        self._initialise()

    @staticmethod
    def _build_cuts(config: EViTPoseConfig) -> nn.ModuleDict:
        plan, joints = config.plan, config.joints
        own = (_METHODS[config.score],) * len(plan.blocks)
        before = (config.patches, *plan.keep)
        grid: tuple[int, int] | None = config.grid
        cuts = nn.ModuleDict()
        for block, count, keep, method in zip(
            plan.blocks, before, plan.keep, plan.methods or own, strict=False
        ):
            place = Place(
                count, keep, joints, grid=grid, dim=config.dim, heads=config.heads, block=block
            )
            cut = build_reducer(method, place)
            chosen = isinstance(cut, SelectingReducer) and cut.merge == "drop"
            pooled = isinstance(cut, AveragePool) and config.fill == "carry"
            if not chosen and not pooled and not isinstance(cut, ConstantSelection):
                raise UsageError(
                    f"EViTPose puts dropped patches back where they were; method '{method}' at "
                    f"block {block} mixes them.",
                    "Use a method that keeps patches, without a merge; or average_pool with the "
                    "fill 'carry'.",
                )
            if cut.reads_attention or cut.reads_levels:
                raise UsageError(
                    f"EViTPose hands a cut the attention of its own block alone; method "
                    f"'{method}' at block {block} reads blocks {cut.reads_attention} and levels "
                    f"{cut.reads_levels}.",
                    "Use a method that reads its own block: joint, or top(by=received).",
                )
            cuts[str(block)], grid = cut, cut.grid
        return cuts

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        for table in (self.pos_embed, self.joint_tokens, getattr(self, "mask_token", None)):
            if table is not None:
                nn.init.trunc_normal_(table, std=0.02)

    def with_plan(self, plan: PruningPlan) -> EViTPose:
        """Return a network with another plan that shares this one's parameters and buffers.

        The training flag of the blocks and the head is shared too.

        Raises:
            UsageError: the plan does not fit, or `prune` made this network.
        """
        if len(self.blocks) != self.config.depth:
            raise UsageError(
                "The blocks of this EViTPose are pruned by `prune`.",
                "Use the network that it was made from.",
            )
        twin = copy.copy(self)
        twin.config = replace(self.config, plan=plan)
        twin.__dict__["_modules"] = dict(self._modules)
        twin.cuts = self._build_cuts(twin.config)
        return twin

    def token_layout(self) -> BlockLayout:
        """Return what `prune` must know: the blocks, and that the head reads the whole grid.

        Raises:
            UsageError: it has cuts of its own.
        """
        if self.config.plan.blocks:
            raise UsageError(
                f"EViTPose is pruned already, by its own plan '{self.config.plan.level}'.",
                "Give the dense network: level L0, or with_plan(DENSE).",
            )
        size = (1, 3, self.config.height, self.config.width)
        return BlockLayout(
            "blocks", heads="attn.heads", special=self.config.joints, class_token=False,
            grid=self.config.grid, restore="delta", input=size,
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised crops to joints.

        Args:
            images: (B, 3, height, width) float32, RGB, ImageNet-normalised.

        Returns:
            (B, J, height / 4, width / 4) heatmaps; the regression head returns (B, J, 4):
            x and y in 0..1 of the crop, and their standard deviations in the same unit.
        """
        joints, patches = self.features(images)
        out: Tensor = self.keypoint_head(joints, patches)
        return out

    def embed(self, images: Tensor) -> Tensor:
        """Return what enters the first block, (B, J + N, C): joint tokens, then patches."""
        patches = self.patch_embed(images).flatten(2).transpose(1, 2) + self.pos_embed
        joints = self.joint_tokens.expand(patches.shape[0], -1, -1).to(patches.dtype)
        return torch.cat((joints, patches), dim=1)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return normed joint tokens (B, J, C) and the normed patch grid (B, N, C).

        The grid is None for heads that read joint tokens only.
        """
        tokens = self.embed(images)
        done: list[Selection] = []
        for number, block in enumerate(self.blocks):
            cut = self.cuts[str(number)] if str(number) in self.cuts else None
            tokens, selection = block(tokens, cut)
            if selection is not None:
                done.append(selection)
        count = self.config.joints
        joints = self.last_norm(tokens[:, :count])
        if not self.keypoint_head.reads_grid:
            return joints, None
        patches = tokens[:, count:]
        if done:
            constant = all(isinstance(one.cut, ConstantSelection) for one in done)
            pooled = any(one.kept is None for one in done)  # with the fill 'carry' alone
            unwound = pooled or (constant and self.config.fill == "carry")
            patches = (self._unwound if unwound else self._scattered)(patches, done)
        return joints, self.last_norm(patches)

    def _unwound(self, patches: Tensor, done: list[Selection]) -> Tensor:
        """Return (B, N, C), cut by cut: constant gathers and products, no scatter."""
        for cut, seen, reduced in reversed(done):
            patches = cut.restore_patches(patches, reduced, seen, "delta")
        return patches

    def _scattered(self, patches: Tensor, done: list[Selection]) -> Tensor:
        """Return (B, N, C): each patch where it was, those that were dropped as the fill says."""
        grid: Tensor | None = None  # patches as they were when they were dropped
        where: Tensor | None = None  # position of each surviving patch
        for one in done:
            seen, kept = one.patches, one.kept
            assert kept is not None  # for the type checker: none of these mixes patches
            if self.config.fill == "carry":
                grid = seen if grid is None or where is None else put_tokens(grid, where, seen)
            where = kept if where is None else torch.gather(where, 1, kept)
        assert where is not None
        return put_tokens(self._background(grid, patches), where, patches)

    def _background(self, grid: Tensor | None, like: Tensor) -> Tensor:
        if grid is not None:
            return grid
        shape = (like.shape[0], self.config.patches, self.config.dim)
        if self.config.fill == "mask":
            return (self.mask_token + self.pos_embed).to(like.dtype).expand(shape)
        return torch.zeros(shape, dtype=like.dtype, device=like.device)
