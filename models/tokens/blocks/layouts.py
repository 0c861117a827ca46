"""Where the parts of a transformer block are: what `prune` must know of a network.

A layout names, as paths of attributes, the list of pre-norm blocks and the parts of one block. The
table holds the layouts of the networks in `transformers` and of the common ViT code (timm, the
original DINOv2); any other network gives its own, or tells it by a method `token_layout()`, as
EViTPose and FreeCodec's decoder do. Nothing is believed: before a block is run in
parts, the parts are compared with the block itself on an example.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from prunus.models.tokens.reducer import Restore
from prunus.runtime.errors import UsageError


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """The parts of a pre-norm block, as attribute paths within it.

    A block is x + scale1(out(attention(qkv(norm1(x))))), then the same with norm2 and mlp.

    Attributes:
        blocks: Path of the block list in the network; empty: the only list of such blocks.
        norm1: Norm before the attention.
        qkv: One fused projection, or the three of query, key and value.
        out: Projection after the attention.
        heads: Number of heads.
        norm2: Norm before the MLP.
        mlp: The MLP: one module, or several in order.
        scale1: LayerScale of the attention; empty: none.
        scale2: LayerScale of the MLP.
        query_norm: Norm of queries within a head; empty: none.
        key_norm: The same of keys.
        special: Leading tokens that are never dropped; None: as the network says.
        class_token: Whether the first of them is a class token.
        grid: Rows and columns of the patches; (1, 0): a sequence of any length; None: as the
            configuration says.
        restore: What follows the blocks gets, where the caller does not say: see `prune`.
        input: Shape of the one input; empty: as the configuration says.
    """

    blocks: str = ""
    norm1: str = "norm1"
    qkv: tuple[str, ...] = ("attn.qkv",)
    out: str = "attn.proj"
    heads: str = "attn.num_heads"
    norm2: str = "norm2"
    mlp: tuple[str, ...] = ("mlp",)
    scale1: str = ""
    scale2: str = ""
    query_norm: str = ""
    key_norm: str = ""
    special: int | None = None
    class_token: bool = True
    grid: tuple[int, int] | None = None
    restore: Restore = "none"
    input: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.qkv) not in (1, 3):
            raise UsageError(
                f"A layout names {len(self.qkv)} projections {self.qkv}; expected one fused one, "
                "or three."
            )

    def part(self, block: nn.Module, path: str) -> Any:
        """Return a part of a block; raises UsageError where it is not."""
        try:
            return operator.attrgetter(path)(block)
        except AttributeError:
            names = ", ".join(sorted(name for name, _ in block.named_children()))
            raise UsageError(
                f"The layout expects '{path}' in {type(block).__name__}, which has: {names}.",
                "Give the paths of this block with layout=BlockLayout(...).",
            ) from None


@dataclass(frozen=True, slots=True)
class Family:
    """Networks whose blocks are of one class.

    Attributes:
        block: Name of the class.
        layout: Its parts.
        special: Network -> number of its special tokens.
    """

    block: str
    layout: BlockLayout
    special: Callable[[nn.Module], int]


_VIT = BlockLayout(
    norm1="layernorm_before",
    qkv=("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    out="attention.o_proj",
    heads="attention.num_attention_heads",
    norm2="layernorm_after",
)
_DINOV2 = replace(_VIT, norm1="norm1", norm2="norm2", scale1="layer_scale1", scale2="layer_scale2")
_CLIP = BlockLayout(
    norm1="layer_norm1",
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    out="self_attn.out_proj",
    heads="self_attn.num_heads",
    norm2="layer_norm2",
)
_WHISPER = replace(
    _CLIP,
    norm1="self_attn_layer_norm",
    norm2="final_layer_norm",
    mlp=("fc1", "activation_fn", "fc2"),
    class_token=False,
)
# timm's VisionTransformer and the original DINOv2; LayerScale is an Identity where there is none.
_PLAIN = BlockLayout(scale1="ls1", scale2="ls2")


def _config(network: nn.Module, name: str, default: int = 0) -> int:
    return int(getattr(getattr(network, "config", None), name, default))


def _prefix(network: nn.Module) -> int:
    """Return the special tokens of timm's and the original DINOv2's networks."""
    own = getattr(network, "num_prefix_tokens", None)
    return int(own) if own is not None else 1 + int(getattr(network, "num_register_tokens", 0))


FAMILIES: tuple[Family, ...] = (
    Family("ViTLayer", _VIT, lambda network: 1),
    Family("DeiTLayer", _VIT, lambda network: 2),
    Family("ASTLayer", _VIT, lambda network: 2),
    Family("ViTMSNLayer", _VIT, lambda network: 1),
    Family("Dinov2Layer", _DINOV2, lambda network: 1),
    Family(
        "Dinov2WithRegistersLayer",
        _DINOV2,
        lambda network: 1 + _config(network, "num_register_tokens", 4),
    ),
    Family("CLIPEncoderLayer", _CLIP, lambda network: 1),
    Family("SiglipEncoderLayer", replace(_CLIP, class_token=False), lambda network: 0),
    Family("WhisperEncoderLayer", _WHISPER, lambda network: 0),
    Family("Block", _PLAIN, _prefix),
    Family("NestedTensorBlock", _PLAIN, _prefix),
)


def find_layout(network: nn.Module, layout: BlockLayout | None) -> BlockLayout:
    """Return the layout of a network with `blocks` and `special` filled in.

    Raises:
        UsageError: no list of known blocks, or several; or blocks that have cuts already.
    """
    if layout is None and (told := told_layout(network)) is not None:
        layout = told
    rows = {family.block: family for family in FAMILIES}
    path = layout.blocks if layout is not None else ""
    if not path:
        lists = [
            (name, module)
            for name, module in network.named_modules()
            if isinstance(module, nn.ModuleList | nn.Sequential)
            and len(module)
            and _pruneable(module[0], layout, rows)
        ]
        if len(lists) != 1:
            found = ", ".join(f"{n} ({type(m[0]).__name__})" for n, m in lists) or "none"
            raise UsageError(
                f"{type(network).__name__} has {len(lists)} lists of transformer blocks that could "
                f"be pruned: {found}; expected one.",
                "Give layout=BlockLayout(blocks='path.of.the.list', ...), or only the tower to "
                "prune.",
            )
        path, blocks = lists[0]
        if layout is None:
            family = rows[type(blocks[0]).__name__]
            return replace(family.layout, blocks=path, special=family.special(network))
    assert layout is not None, "a path without a search is a layout's own"
    special = layout.special if layout.special is not None else int(layout.class_token)
    return replace(layout, blocks=path, special=special)


def told_layout(network: nn.Module) -> BlockLayout | None:
    """Return the layout that a network, or the one module in it that can, tells by itself.

    Raises:
        UsageError: its blocks have cuts already.
    """
    telling = [(n, m) for n, m in network.named_modules() if hasattr(m, "token_layout")]
    if len(telling) != 1:
        return None
    ((name, module),) = telling
    own: BlockLayout = module.token_layout()
    if not name:
        return own
    return replace(own, blocks=f"{name}.{own.blocks}", input=())  # its own input, not the whole's


def block_list(network: nn.Module, layout: BlockLayout) -> nn.ModuleList | nn.Sequential:
    """Return a network's list of blocks; raises UsageError where the layout's path is none."""
    try:
        found = operator.attrgetter(layout.blocks)(network)
    except AttributeError:
        found = None
    if not isinstance(found, nn.ModuleList | nn.Sequential) or not len(found):
        raise UsageError(
            f"The layout expects a list of blocks at '{layout.blocks}' in "
            f"{type(network).__name__}; there is {type(found).__name__}.",
            "Give the path of its nn.ModuleList: layout=BlockLayout(blocks='...').",
        )
    return found


def replace_blocks(network: nn.Module, layout: BlockLayout, blocks: Sequence[nn.Module]) -> None:
    """Put other blocks into a network, in a list of the same kind."""
    old = block_list(network, layout)
    parent, _, name = layout.blocks.rpartition(".")
    holder = operator.attrgetter(parent)(network) if parent else network
    listed = nn.Sequential(*blocks) if isinstance(old, nn.Sequential) else nn.ModuleList(blocks)
    setattr(holder, name, listed)


def _pruneable(block: nn.Module, layout: BlockLayout | None, rows: dict[str, Family]) -> bool:
    if layout is None:
        return type(block).__name__ in rows
    return all(hasattr(block, path.partition(".")[0]) for path in (layout.norm1, layout.out))


def patch_grid(
    network: nn.Module, layout: BlockLayout, tokens: int
) -> tuple[int, int] | None:
    """Return rows and columns of the patches as a layout or a configuration tells them.

    None where neither says, or where they are not `tokens`.
    """
    if layout.grid is not None:
        rows, columns = layout.grid
        grid = (rows, columns or tokens // rows)
        return grid if grid[0] * grid[1] == tokens else None
    config = getattr(network, "config", None)
    if hasattr(config, "max_source_positions"):
        return (1, tokens)
    size, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
    if size is None or patch is None:
        return None
    (height, width), (rows, columns) = _sides(size), _sides(patch)
    grid = (height // rows, width // columns)
    return grid if grid[0] * grid[1] == tokens else None


def example_input(network: nn.Module) -> Tensor | None:
    """Return one input of noise for a network that tells its shape, or None.

    Those of `transformers` do, and those with a `token_layout`.
    """
    config: Any = getattr(network, "config", None)
    told = told_layout(network)
    if told is not None and told.input:
        shape: tuple[int, ...] = told.input
    elif hasattr(config, "max_source_positions") and hasattr(config, "num_mel_bins"):
        shape = (1, config.num_mel_bins, 2 * config.max_source_positions)
    elif hasattr(config, "num_mel_bins") and hasattr(config, "max_length"):
        shape = (1, config.max_length, config.num_mel_bins)
    elif hasattr(config, "image_size") and hasattr(config, "num_channels"):
        shape = (1, config.num_channels, *_sides(config.image_size))
    else:
        return None
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _sides(size: Any) -> tuple[int, int]:
    """Return height and width of a size that may be one number for both."""
    height, width = size if isinstance(size, tuple | list) else (size, size)
    return int(height), int(width)
