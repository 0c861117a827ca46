"""The network of a pose training: how it begins, and how it moves to another size of input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from prunus.models.checkpoints.read import read_checkpoint
from prunus.models.pose.evitpose import EViTPose, EViTPoseConfig, evitpose_config
from prunus.models.training.pose.init import cosine_filters, mimic_attention, sine_positions
from prunus.models.training.state import Optimisers, SavedRun, adam, muon
from prunus.runtime.errors import ArtifactError

_POSITIONS = "pos_embed"


def build_network(
    variant: str, size: tuple[int, int], seed: int, depth: int | None = None
) -> EViTPose:
    """Return a freshly initialised network for inputs of ``size`` (height, width).

    Args:
        variant: Name of the size.
        size: Of the input.
        seed: Of the weights.
        depth: Blocks; None: the variant's.
    """
    torch.manual_seed(seed)
    config = evitpose_config(variant)
    config = replace(config, height=size[0], width=size[1], depth=depth or config.depth)
    network = EViTPose(config)
    rows, cols = config.grid
    with torch.no_grad():
        network.patch_embed.weight.copy_(cosine_filters(config.dim))
        network.patch_embed.bias.zero_()  # type: ignore[union-attr]
        network.pos_embed.copy_(0.5 * sine_positions(rows, cols, config.dim)[None])
        network.joint_tokens.normal_(std=0.5)
        for block in network.blocks:
            mimic_attention(block.attn.qkv, block.attn.proj, config.heads)  # type: ignore[union-attr, arg-type]
    return network


def start_from(network: EViTPose, path: Path, whole: EViTPoseConfig | None = None) -> None:
    """Give a network the weights of a file in our own layout.

    One with fewer blocks takes the first ones; positions move to another size of input.

    Args:
        network: Gets them.
        path: ``.safetensors``, shipped or written by ``prunus models import``.
        whole: Network that the file holds; None: one like `network`.

    Raises:
        ArtifactError: the file is missing, or holds another network.
    """
    state = read_checkpoint(path)
    config = whole or network.config
    like = EViTPose(config).state_dict()
    wanted = {name: tuple(value.shape) for name, value in like.items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if wanted != found:
        odd = sorted(set(wanted.items()) ^ set(found.items()))[0][0]
        raise ArtifactError(
            f"{path} does not fit EViTPose-{network.config.variant.title()}: '{odd}' is "
            f"{found.get(odd, 'missing')}, expected {wanted.get(odd, 'nothing')}.",
            "Give weights of this size, head and joint count.",
        )
    moved = resize_positions(state, config.grid, network.config.grid)
    network.load_state_dict({name: moved[name] for name in network.state_dict()})


def resize_positions(
    state: dict[str, torch.Tensor], old: tuple[int, int], new: tuple[int, int]
) -> dict[str, torch.Tensor]:
    """Return the state with its position codes interpolated from one patch grid to another.

    Rows are scaled, and columns by as much: a narrower grid is the middle of a wider one, as people
    of the same height stay as large in a narrower crop.
    """
    if old == new:
        return state
    codes = state[_POSITIONS].float().reshape(1, *old, -1).permute(0, 3, 1, 2)
    across = (new[1] / old[1]) * (old[0] / new[0])
    places = functional.affine_grid(
        torch.tensor([[[across, 0.0, 0.0], [0.0, 1.0, 0.0]]]),
        [1, 1, *new], align_corners=False,
    )  # fmt: skip
    codes = functional.grid_sample(
        codes, places.to(codes), mode="bicubic", padding_mode="border", align_corners=False
    )
    return {**state, _POSITIONS: codes.permute(0, 2, 3, 1).reshape(1, new[0] * new[1], -1)}


def moved_to_size(network: EViTPose, size: tuple[int, int]) -> EViTPose:
    """Return a network for inputs of ``size`` with the trained weights of another size."""
    config = replace(network.config, height=size[0], width=size[1])
    twin = EViTPose(config)
    twin.load_state_dict(resize_positions(network.state_dict(), network.config.grid, config.grid))
    return twin


def freeze(network: EViTPose, blocks: int) -> None:
    """Let nothing below a network's block of that number learn; 0 freezes the patch filters alone.

    The filters are always frozen: see `prunus.models.training.pose.init`.
    """
    network.patch_embed.requires_grad_(False)
    if blocks:
        network.pos_embed.requires_grad_(False)
        network.joint_tokens.requires_grad_(False)
        network.blocks[:blocks].requires_grad_(False)


def trunk_optimisers(
    network: EViTPose, readout: nn.Module, rate: float, decay: float, *, share: float
) -> Optimisers:
    """Drive what starts fresh (head, joint tokens) at the full rate, a trained trunk at a share.

    AdamW drives both: Muon changes every direction of a matrix alike, also those that a trunk has
    learnt to leave alone.
    """
    trunk: list[nn.Parameter] = []
    head: list[nn.Parameter] = []
    for name, value in network.named_parameters():
        (head if name.startswith(("keypoint_head.", "joint_tokens")) else trunk).append(value)
    head += readout.parameters()
    groups = [(head, 1.0, decay), (trunk, share, decay)]
    all_groups = [
        {"params": [p for p in members if (p.ndim in (2, 4)) == heavy and p.requires_grad],
         "share": part, "weight_decay": weight if heavy else 0.0}
        for members, part, weight in groups
        for heavy in (True, False)
    ]  # fmt: skip
    adamw = torch.optim.AdamW(all_groups, lr=rate, betas=(0.9, 0.99), fused=True)
    return Optimisers([adamw], rate)


def pose_optimisers(
    network: EViTPose, readout: nn.Module, rate: float, decay: float, *, with_muon: bool
) -> Optimisers:
    """Drive the matrices inside the blocks with Muon and all else with AdamW.

    Vectors, position codes, tokens and convolutions stay with AdamW; one-dimensional parameters,
    codes and tokens do not decay.
    """
    matrices, kernels, vectors = [], [], []
    for name, value in network.named_parameters():
        if not value.requires_grad:
            continue
        if value.ndim == 2 and name.startswith("blocks."):
            matrices.append(value)
        elif value.ndim == 4:
            kernels.append(value)
        else:
            vectors.append(value)
    lines = torch.optim.AdamW(readout.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.0)
    if not with_muon:
        return Optimisers([adam([*kernels, *matrices], vectors, rate, decay, 0.99), lines], rate)
    rest = adam(kernels, vectors, rate, decay, 0.99)
    return Optimisers([muon(matrices, rate, decay), rest, lines], rate)


def saved_config(saved: SavedRun) -> EViTPoseConfig:
    """Return the network that a run is training, at its size of input."""
    facts = saved.facts
    config = evitpose_config(facts["variant"])
    depth = int(facts.get("depth", config.depth))  # older runs: all blocks
    return replace(config, height=int(facts["height"]), width=int(facts["width"]), depth=depth)


def facts_of(network: EViTPose) -> dict[str, str]:
    """Return what `saved_config` reads."""
    config = network.config
    return {
        "height": str(config.height),
        "width": str(config.width),
        "variant": config.variant,
        "depth": str(config.depth),
    }
