"""DINOv2 ViT-S/14 (Oquab et al., arXiv 2304.07193; weights Apache-2.0) as the trunk of EViTPose.

What has to be changed besides names:

* LayerScale multiplies what each half of a block adds: it is folded into the output projections;
* patches of 14 pixels become patches of 16: each kernel is resized so that it answers to an
  enlarged patch as the old one did to the patch (pseudo-inverse of the resize, FlexiViT, Beyer et
  al., arXiv 2212.08013, section 3.4);
* the table of positions (37 x 37 of the published files) is resampled to the network's grid.

EViTPose has joint tokens where DINOv2 has one class token: each starts as the class token with its
position, and a little noise to tell them apart. With a single joint token and no noise the blocks
compute DINOv2's very features. The head has no source. Of a network with fewer blocks than the
file, the first ones are filled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from prunus.models.checkpoints.fit import require_fit, save_imported
from prunus.models.checkpoints.layouts import Layout, marked_layout, rename
from prunus.models.checkpoints.read import read_checkpoint
from prunus.models.checkpoints.registry import Importer, ImportOptions
from prunus.models.checkpoints.vitpose import resample
from prunus.models.pose.evitpose import PATCH, EViTPose, EViTPoseConfig, evitpose_config
from prunus.models.pose.heads import Head
from prunus.runtime.errors import ArtifactError, MissingDependencyError, UsageError

_HEAD_DIM = 64  # channels of an attention head in every published DINOv2
_SPREAD = 0.1  # of the noise on joint tokens, relative to the class token's channels
_QKV = "query|key|value"

FACEBOOK = Layout(
    "facebook",
    r"blocks\.0\.ls1\.gamma",
    (
        (r"patch_embed\.proj\.", r"patch_embed."),
        (r"cls_token$", r"cls_token"),
        (r"pos_embed$", r"pos_embed"),
        (r"norm\.", r"last_norm."),
        (r"blocks\.", r"blocks."),
    ),
    r"mask_token",
)
HUGGING_FACE = Layout(
    "huggingface",
    r"(backbone\.)?encoder\.layer\.0\.layer_scale1\.lambda1",
    (
        (r"embeddings\.patch_embeddings\.projection\.", r"patch_embed."),
        (r"embeddings\.cls_token$", r"cls_token"),
        (r"embeddings\.position_embeddings$", r"pos_embed"),
        (r"encoder\.layer\.(\d+)\.norm([12])\.", r"blocks.\1.norm\2."),
        (rf"encoder\.layer\.(\d+)\.attention\.attention\.({_QKV})\.", r"blocks.\1.attn.\2."),
        (r"encoder\.layer\.(\d+)\.attention\.q_proj\.", r"blocks.\1.attn.query."),
        (r"encoder\.layer\.(\d+)\.attention\.k_proj\.", r"blocks.\1.attn.key."),
        (r"encoder\.layer\.(\d+)\.attention\.v_proj\.", r"blocks.\1.attn.value."),
        (r"encoder\.layer\.(\d+)\.attention\.(?:output\.dense|o_proj)\.", r"blocks.\1.attn.proj."),
        (r"encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1$", r"blocks.\1.ls\2.gamma"),
        (r"encoder\.layer\.(\d+)\.mlp\.", r"blocks.\1.mlp."),
        (r"layernorm\.", r"last_norm."),
    ),
    r"embeddings\.mask_token|decoder\..*",
)


def convert_dinov2(
    tensors: Mapping[str, Tensor], config: EViTPoseConfig, *, seed: int = 0, spread: float = _SPREAD
) -> dict[str, Tensor]:
    """Return a complete state dict of `EViTPose(config)`, float32.

    Args:
        tensors: DINOv2 under the names of Facebook's files or of Hugging Face's.
        config: The network to fill; its head and joint tokens' differences are fresh.
        seed: Seed of what is fresh.
        spread: Noise on the joint tokens, relative to the spread of the class token's channels.

    Raises:
        UsageError: another layout, another width or head count, or names or shapes that do not
            fit, all of them listed.
        ArtifactError: numbers that are not finite.
    """
    layout = marked_layout(tensors, (FACEBOOK, HUGGING_FACE))
    if layout is None:
        raise UsageError(
            f"The checkpoint is no DINOv2; its names begin with: {', '.join(sorted(tensors)[:4])}.",
            "Expected Facebook's or Hugging Face's names, with LayerScale.",
        )
    odd = [name for name, value in tensors.items() if not bool(torch.isfinite(value).all())]
    if odd:
        raise ArtifactError(
            f"The checkpoint holds numbers that are not finite, first in '{odd[0]}' "
            f"({len(odd)} of {len(tensors)} tensors).",
            "It is damaged: copy or download it again.",
        )
    state, _ = rename(tensors, layout)
    _check_size(state, config)
    deeper = r"blocks\.(\d+)\."
    state = {
        name: value
        for name, value in state.items()
        if not (found := re.match(deeper, name)) or int(found[1]) < config.depth
    }
    _fold_scales(state)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        own = EViTPose(config).state_dict()
        noise = torch.randn(own["joint_tokens"].shape)
    if {"cls_token", "pos_embed", "patch_embed.weight"} <= state.keys():
        table = state["pos_embed"]
        token = state.pop("cls_token") + table[:, :1]
        state["joint_tokens"] = token + spread * token.std() * noise
        state["pos_embed"] = resample(table[:, 1:], _square(table), config.grid)
        state["patch_embed.weight"] = resize_kernel(state["patch_embed.weight"], PATCH)
    fresh = {name for name in own if name.startswith("keypoint_head.")}
    title = f"EViTPose-{config.variant}, read as DINOv2 in the layout {layout.name}"
    require_fit(own, state, title, fresh=fresh, advice=lambda _: "Give DINOv2 ViT-S/14.")
    return {n: state.get(n, v).to(v.dtype).contiguous() for n, v in own.items()}


def resize_kernel(kernel: Tensor, side: int) -> Tensor:
    """Return patch kernels (out, in, side, side) for patches enlarged to ``side`` pixels.

    With B the matrix of the bilinear resize from the old side to the new one, the new kernel is
    pinv(B)^T w: its product with B x is w's product with x for every patch x (FlexiViT, section
    3.4).

    Args:
        kernel: (out, in, old, old).
        side: At least the old side; a smaller patch could not hold what the larger one did.
    """
    old = kernel.shape[-1]
    units = torch.eye(old * old, dtype=torch.float64).reshape(old * old, 1, old, old)
    enlarged = functional.interpolate(units, size=(side, side), mode="bilinear")
    resize = enlarged.reshape(old * old, side * side)  # row i: what pixel i becomes
    flat = kernel.double().reshape(-1, old * old)
    resized: Tensor = flat @ torch.linalg.pinv(resize).T
    return resized.reshape(*kernel.shape[:2], side, side).to(kernel.dtype)


def read_dinov2(path: Path) -> dict[str, Tensor]:
    """Read DINOv2's tensors out of a checkpoint or an ONNX file that keeps Hugging Face's names.

    Raises:
        ArtifactError: missing, unreadable or truncated.
        MissingDependencyError: an ONNX file without onnx.
    """
    return _read_onnx(path) if path.suffix == ".onnx" else read_checkpoint(path)


def read_in(
    checkpoint: Path, target: Path, importer: Importer, options: ImportOptions
) -> tuple[str, str]:
    """Import a file for `prunus.models.checkpoints.registry`."""
    variant = options.variant or "dino8"
    config = evitpose_config(variant, head=options.head)
    state = convert_dinov2(read_dinov2(checkpoint), config)
    head: Head = config.head
    about = {"head": head, "joints": config.joints, "trunk": "DINOv2", "variant": variant}
    save_imported(state, checkpoint, target, about)
    return (
        f"DINOv2, first {config.depth} blocks; head {head} starts fresh and must be trained",
        f"evitpose --variant {variant} --head {head} --checkpoint {target}",
    )


def _check_size(state: Mapping[str, Tensor], config: EViTPoseConfig) -> None:
    """Refuse another width, and other attention heads, which no shape shows."""
    width = state["blocks.0.ls1.gamma"].numel()
    blocks = 1 + max(int(n.split(".")[1]) for n in state if n.startswith("blocks."))
    if width != config.dim or blocks < config.depth:
        raise UsageError(
            f"The checkpoint has {blocks} blocks of {width} channels; EViTPose-{config.variant} "
            f"needs at least {config.depth} of {config.dim}.",
            "Give DINOv2 ViT-S/14: 12 blocks of 384 channels.",
        )
    if config.heads * _HEAD_DIM != width:
        raise UsageError(
            f"EViTPose-{config.variant} has {config.heads} attention heads; DINOv2 of {width} "
            f"channels has {width // _HEAD_DIM}.",
            "Choose a variant made for it: dino6, dino8 or dino12.",
        )


def _fold_scales(state: dict[str, Tensor]) -> None:
    scales = [n for n in state if n.endswith(".gamma")]
    halves = {f"blocks.{n.split('.')[1]}.{ls}.gamma" for n in scales for ls in ("ls1", "ls2")}
    if lacking := sorted(halves - set(scales)):
        raise UsageError(f"The checkpoint lacks LayerScale: {lacking[0]}.", "Copy it again.")
    for name in scales:
        prefix, half = name.removesuffix(".gamma").rsplit(".", 1)
        gamma = state.pop(name)
        layer = f"{prefix}.{'attn.proj' if half == 'ls1' else 'mlp.fc2'}"
        for part in ("weight", "bias"):
            if (key := f"{layer}.{part}") in state:
                value = state[key]
                state[key] = value * (gamma[:, None] if value.dim() == 2 else gamma)


def _square(table: Tensor) -> tuple[int, int]:
    count = table.shape[1] - 1
    side = round(count**0.5)
    if side * side != count:
        raise UsageError(
            f"The table of positions has the shape {list(table.shape)}; expected a class token "
            "and a square grid, e.g. [1, 1370, 384].",
            "Give DINOv2 ViT-S/14 without registers.",
        )
    return side, side


def _read_onnx(path: Path) -> dict[str, Tensor]:
    """Read a graph whose vectors kept their names and whose matrices lost theirs.

    A matrix stands in a MatMul that is followed by the Add of its layer's bias, transposed; the
    position of the class token and those of the patches lie apart, told by their shape.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise MissingDependencyError("onnx", "export", "Reading an ONNX file") from None
    try:
        graph = onnx.load(str(path)).graph
        arrays = {
            i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in graph.initializer
        }
    except Exception as error:  # protobuf, numpy and the operating system raise a dozen kinds
        raise ArtifactError(
            f"Cannot read {path}: {str(error).splitlines()[0][:250]}.", "Copy or download it again."
        ) from None
    named = {n.removeprefix("backbone."): v for n, v in arrays.items() if n.startswith("backbone.")}
    product = {
        node.output[0]: arrays[node.input[1]]
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in arrays
    }
    for node in graph.node:
        bias = next((n for n in node.input if n.endswith(".bias")), "")
        matrix = next((product[n] for n in node.input if n in product), None)
        if node.op_type == "Add" and bias and matrix is not None:
            named[bias.removeprefix("backbone.").removesuffix("bias") + "weight"] = (
                matrix.T.contiguous()
            )
    tables = [v for n, v in arrays.items() if n.startswith("onnx::") and v.dim() == 3]
    if len(tables) == 2:
        own, patches = sorted(tables, key=lambda table: table.shape[1])
        named["embeddings.position_embeddings"] = torch.cat((own, patches), 1)
    return named
