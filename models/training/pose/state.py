"""Hold, save and restore everything a pose training needs to go on."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from prunus.models.checkpoints.read import read_checkpoint
from prunus.models.pose.evitpose import EViTPose, evitpose_config
from prunus.models.training.pose.init import cosine_filters, mimic_attention, sine_positions
from prunus.models.training.saved_run import MEMORY, WEIGHTS, read_run
from prunus.models.training.teachers.joint_readout import JointReadout
from prunus.runtime.errors import ArtifactError

_POSITIONS = "pos_embed"


@dataclass
class Clock:
    """Count what a run has consumed, resumed parts included."""

    step: int = 0
    samples: int = 0
    seconds: float = 0.0
    stage: int = 0


def build_network(variant: str, size: tuple[int, int], seed: int) -> EViTPose:
    """Return a freshly initialised network for inputs of ``size`` (height, width)."""
    torch.manual_seed(seed)
    config = replace(evitpose_config(variant), height=size[0], width=size[1])
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


def start_from(network: EViTPose, path: Path) -> None:
    """Give a network the weights of a file in our own layout.

    Args:
        network: For 256x192 inputs.
        path: ``.safetensors``, shipped or written by ``prunus models import``.

    Raises:
        ArtifactError: the file is missing, or holds another network.
    """
    state = read_checkpoint(path)
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if wanted != found:
        odd = sorted(set(wanted.items()) ^ set(found.items()))[0][0]
        raise ArtifactError(
            f"{path} does not fit EViTPose-{network.config.variant.title()}: '{odd}' is "
            f"{found.get(odd, 'missing')}, expected {wanted.get(odd, 'nothing')}.",
            "Give weights of this size, head and joint count.",
        )
    network.load_state_dict(state)


def resize_positions(
    state: dict[str, torch.Tensor], old: tuple[int, int], new: tuple[int, int]
) -> dict[str, torch.Tensor]:
    """Return the state with its position codes interpolated from one patch grid to another."""
    codes = state[_POSITIONS].float().reshape(1, *old, -1).permute(0, 3, 1, 2)
    codes = functional.interpolate(codes, size=new, mode="bicubic", align_corners=False)
    return {**state, _POSITIONS: codes.permute(0, 2, 3, 1).reshape(1, new[0] * new[1], -1)}


def moved_to_size(network: EViTPose, variant: str, size: tuple[int, int]) -> EViTPose:
    """Return a network for inputs of ``size`` with the trained weights of another size."""
    config = replace(evitpose_config(variant), height=size[0], width=size[1])
    twin = EViTPose(config)
    twin.load_state_dict(resize_positions(network.state_dict(), network.config.grid, config.grid))
    return twin


class Average:
    """Keep an exponential moving average of a network's floating-point state."""

    def __init__(self, network: nn.Module, longest: float) -> None:
        self.longest = longest
        self.state = {k: v.detach().clone().float() for k, v in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Blend in the current weights; early steps, still far from good, are soon forgotten."""
        decay = min(self.longest, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            self.state[name].lerp_(value.float(), 1 - decay)


class Optimisers:
    """Drive the matrices inside the blocks with Muon and all else with AdamW.

    Muon (Jordan et al., 2024; scaled to AdamW's step as in "Muon is Scalable for LLM Training",
    2025) needs fewer samples than AdamW for matrices. Vectors, position codes, tokens and
    convolutions stay with AdamW; one-dimensional parameters, codes and tokens do not decay.
    """

    def __init__(
        self, network: nn.Module, readout: nn.Module, rate: float, decay: float, muon: bool
    ) -> None:
        matrices, kernels, vectors = [], [], []
        for name, value in network.named_parameters():
            if name.startswith("patch_embed."):
                value.requires_grad_(False)  # see pose_init: frozen cosine filters
                continue
            if value.ndim == 2 and name.startswith("blocks."):
                matrices.append(value)
            elif value.ndim == 4:
                kernels.append(value)
            else:
                vectors.append(value)
        groups: list[dict[str, object]] = [
            {"params": kernels, "weight_decay": decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.all: list[torch.optim.Optimizer] = []
        if muon:
            self.all.append(
                torch.optim.Muon(
                    matrices,
                    lr=rate,
                    weight_decay=decay,
                    momentum=0.95,
                    ns_steps=4,
                    adjust_lr_fn="match_rms_adamw",
                )
            )
        else:
            groups.append({"params": matrices, "weight_decay": decay})
        self.all.append(torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99), fused=True))
        self.all.append(
            torch.optim.AdamW(readout.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.0)
        )
        self._rate = rate

    def step(self, factor: float) -> None:
        """Update the weights with the learning rate times ``factor`` and clear the gradients."""
        for optimiser in self.all:
            for group in optimiser.param_groups:
                group["lr"] = self._rate * factor
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    def state(self) -> list[dict[str, object]]:
        """Return the state of every optimiser."""
        return [optimiser.state_dict() for optimiser in self.all]

    def restore(self, states: list[dict[str, object]]) -> None:
        """Take over saved states; moments whose parameter changed size are dropped."""
        for optimiser, state in zip(self.all, states, strict=False):
            optimiser.load_state_dict(state)
            for parameter, values in list(optimiser.state.items()):
                moments = [v for v in values.values() if torch.is_tensor(v) and v.ndim > 0]
                if any(m.shape != parameter.shape for m in moments):
                    del optimiser.state[parameter]


def save_checkpoint(
    folder: Path,
    network: EViTPose,
    readout: JointReadout,
    *,
    average: Average,
    optimisers: Optimisers,
    clock: Clock,
) -> None:
    """Write weights, average, optimiser state and clock so that a kill never leaves half a file.

    The optimiser file carries the step of its weights, and is renamed last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    facts = {
        "step": str(clock.step),
        "samples": str(clock.samples),
        "seconds": repr(clock.seconds),
        "stage": str(clock.stage),
        "height": str(network.config.height),
        "width": str(network.config.width),
        "variant": network.config.variant,
    }
    tensors = {f"network.{k}": v.contiguous() for k, v in network.state_dict().items()}
    tensors |= {f"readout.{k}": v.contiguous() for k, v in readout.state_dict().items()}
    tensors |= {f"average.{k}": v.contiguous() for k, v in average.state.items()}
    weights, memory = folder / WEIGHTS, folder / MEMORY
    save_file(tensors, f"{weights}.part", metadata=facts)
    torch.save({"step": clock.step, "states": optimisers.state()}, f"{memory}.part")
    os.replace(f"{weights}.part", weights)
    os.replace(f"{memory}.part", memory)


@dataclass(frozen=True)
class Checkpoint:
    """Hold what ``save_checkpoint`` wrote."""

    network: dict[str, torch.Tensor]
    readout: dict[str, torch.Tensor]
    average: dict[str, torch.Tensor]
    optimisers: list[dict[str, object]] | None
    clock: Clock
    size: tuple[int, int]
    variant: str


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint; optimiser state of another step than the weights' is left out.

    Raises:
        ArtifactError: there is no checkpoint.
    """
    saved = read_run(folder, ("network.", "readout.", "average."))
    facts = saved.facts
    clock = Clock(
        int(facts["step"]), int(facts["samples"]), float(facts["seconds"]), int(facts["stage"])
    )
    pick, states = saved.tensors, saved.states_at(clock.step)
    size = (int(facts["height"]), int(facts["width"]))
    return Checkpoint(
        pick["network."], pick["readout."], pick["average."], states, clock, size, facts["variant"]
    )
