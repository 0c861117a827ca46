"""The names that public ViTPose checkpoints use, rewritten into those of `EViTPose`.

Four layouts exist: the authors' repository (and its derivatives), mmpose 1.x, the Hugging Face
port, and bare MAE backbones that ViTPose (arXiv 2204.12484) starts from. Only names and the q/k/v
split differ here; what the numbers mean is settled in `vitpose`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prunus.runtime.errors import UsageError


@dataclass(frozen=True, slots=True)
class Layout:
    """One way of naming the same numbers.

    Attributes:
        name: Shown to users.
        mark: Pattern of a name that only this layout has.
        rules: (pattern, replacement) pairs, tried in order, on names without ``backbone.``.
        tolerated: Pattern of names that have no meaning for us and may be there.
    """

    name: str
    mark: str
    rules: tuple[tuple[str, str], ...]
    tolerated: str = r"cls_token"


_BLOCKS = (r"blocks\.", r"blocks."), (r"pos_embed$", r"pos_embed")

OFFICIAL = Layout(
    "official",
    r"backbone\.patch_embed\.proj\.weight",
    (
        (r"patch_embed\.proj\.", r"patch_embed."),
        *_BLOCKS,
        (r"last_norm\.", r"last_norm."),
        (r"keypoint_head\.", r"keypoint_head."),
        (r"associate_keypoint_heads\.", r"associate_keypoint_heads."),
    ),
)
MAE = Layout(
    "mae",
    r"patch_embed\.proj\.weight",
    ((r"patch_embed\.proj\.", r"patch_embed."), *_BLOCKS, (r"(last_)?norm\.", r"last_norm.")),
    r"cls_token|mask_token|decoder_.*",
)
MMPOSE = Layout(
    "mmpose",
    r"(backbone\.)?patch_embed\.projection\.weight",
    (
        (r"patch_embed\.projection\.", r"patch_embed."),
        (r"pos_embed$", r"pos_embed"),
        (r"layers\.(\d+)\.ln([12])\.", r"blocks.\1.norm\2."),
        (r"layers\.(\d+)\.ffn\.layers\.0\.0\.", r"blocks.\1.mlp.fc1."),
        (r"layers\.(\d+)\.ffn\.layers\.1\.", r"blocks.\1.mlp.fc2."),
        (r"layers\.(\d+)\.attn\.", r"blocks.\1.attn."),
        (r"ln1\.", r"last_norm."),
        (r"head\.", r"keypoint_head."),
    ),
)
HUGGING_FACE = Layout(
    "huggingface",
    r"(backbone\.)?embeddings\.patch_embeddings\.projection\.weight",
    (
        (r"embeddings\.patch_embeddings\.projection\.", r"patch_embed."),
        (r"embeddings\.position_embeddings$", r"pos_embed"),
        (r"encoder\.layer\.(\d+)\.layernorm_before\.", r"blocks.\1.norm1."),
        (r"encoder\.layer\.(\d+)\.layernorm_after\.", r"blocks.\1.norm2."),
        (
            r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.",
            r"blocks.\1.attn.\2.",
        ),
        (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"blocks.\1.attn.proj."),
        (r"encoder\.layer\.(\d+)\.mlp\.", r"blocks.\1.mlp."),
        (r"layernorm\.", r"last_norm."),
        (r"head\.deconv1\.", r"keypoint_head.deconv_layers.0."),
        (r"head\.batchnorm1\.", r"keypoint_head.deconv_layers.1."),
        (r"head\.deconv2\.", r"keypoint_head.deconv_layers.3."),
        (r"head\.batchnorm2\.", r"keypoint_head.deconv_layers.4."),
        (r"head\.conv\.", r"keypoint_head.final_layer."),
    ),
    r"embeddings\.cls_token",
)
LAYOUTS = (OFFICIAL, MMPOSE, HUGGING_FACE, MAE)


def marked_layout(names: Collection[str], layouts: Sequence[Layout]) -> Layout | None:
    """Return the first of some layouts whose mark is among the names; None: of none."""
    for layout in layouts:
        if any(re.fullmatch(layout.mark, name) for name in names):
            return layout
    return None


def detect_layout(names: list[str]) -> Layout:
    """Return the layout that has these names.

    Raises:
        UsageError: none has.
    """
    if (layout := marked_layout(names, LAYOUTS)) is not None:
        return layout
    shown = ", ".join(sorted(names)[:4])
    raise UsageError(
        f"The checkpoint is in no known layout; its names begin with: {shown}.",
        f"Expected ViTPose in one of the layouts {', '.join(x.name for x in LAYOUTS)}.",
    )


def rename(state: Mapping[str, Tensor], layout: Layout) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors under our names, and the tolerated names that were left out.

    A name that no rule knows stays as it is, so that the caller can report it.
    """
    renamed: dict[str, Tensor] = {}
    left_out = []
    for name, tensor in state.items():
        bare = name.removeprefix("backbone.")
        if re.fullmatch(layout.tolerated, bare):
            left_out.append(name)
            continue
        renamed[_apply(bare, name, layout)] = tensor
    return _merge_qkv(renamed), left_out


def _apply(bare: str, name: str, layout: Layout) -> str:
    for pattern, replacement in layout.rules:
        new, count = re.subn("^" + pattern, replacement, bare)
        if count:
            return new
    return name


def _merge_qkv(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Stack separate query, key and value rows in the order q, k, v."""
    merged = dict(state)
    for name in state:
        found = re.fullmatch(r"(blocks\.\d+\.attn\.)query\.(weight|bias)", name)
        if not found:
            continue
        parts = [f"{found[1]}{part}.{found[2]}" for part in ("query", "key", "value")]
        if all(part in state for part in parts):
            merged[f"{found[1]}qkv.{found[2]}"] = torch.cat([merged.pop(p) for p in parts])
    return merged
