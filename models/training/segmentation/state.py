"""Hold, save and restore everything a segmentation training needs to go on."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from prunus.models.segmentation.edaformer import EDAFormer, edaformer_config
from prunus.models.training.pose.state import Average, Clock
from prunus.models.training.saved_run import MEMORY, WEIGHTS, read_run

CLASSES = 2


def fresh_network(variant: str, seed: int) -> EDAFormer:
    """Return a network as the paper's code initialises it.

    Linear layers: truncated normal, 0.02. Convolutions: normal, variance 2 / fan-out.
    """
    torch.manual_seed(seed)
    network = EDAFormer(edaformer_config(variant, classes=CLASSES))
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            kernel = module.kernel_size[0] * module.kernel_size[1]
            fan = kernel * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.normal_(network.decode_head.linear_pred.weight, std=0.01)
    return network


class Optimisers:
    """Drive the linear layers with Muon and all else with AdamW; vectors do not decay."""

    def __init__(self, network: nn.Module, rate: float, decay: float) -> None:
        own = [p for name, p in network.named_parameters() if "conv_seg" not in name]
        matrices = [p for p in own if p.ndim == 2]
        kernels = [p for p in own if p.ndim == 4]
        vectors = [p for p in own if p.ndim < 2]
        muon = torch.optim.Muon(
            matrices,
            lr=rate,
            weight_decay=decay,
            momentum=0.95,
            ns_steps=4,
            adjust_lr_fn="match_rms_adamw",
        )
        groups: list[dict[str, object]] = [
            {"params": kernels, "weight_decay": decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        adam = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99), fused=True)
        self.all: list[torch.optim.Optimizer] = [muon, adam]
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
        """Take over saved states."""
        for optimiser, state in zip(self.all, states, strict=True):
            optimiser.load_state_dict(state)


@dataclass(frozen=True)
class Checkpoint:
    """Hold what `save` wrote."""

    network: dict[str, torch.Tensor]
    average: dict[str, torch.Tensor]
    optimisers: list[dict[str, object]] | None
    clock: Clock
    variant: str


def save(
    folder: Path, network: EDAFormer, average: Average, optimisers: Optimisers, clock: Clock
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
        "variant": network.config.variant,
    }
    tensors = {f"network.{k}": v.contiguous() for k, v in network.state_dict().items()}
    tensors |= {f"average.{k}": v.contiguous() for k, v in average.state.items()}
    weights, memory = folder / WEIGHTS, folder / MEMORY
    save_file(tensors, f"{weights}.part", metadata=facts)
    torch.save({"step": clock.step, "states": optimisers.state()}, f"{memory}.part")
    os.replace(f"{weights}.part", weights)
    os.replace(f"{memory}.part", memory)


def saved_in(folder: Path) -> bool:
    """Tell whether a folder holds a checkpoint."""
    return (folder / WEIGHTS).is_file()


def load(folder: Path) -> Checkpoint:
    """Read a checkpoint; optimiser state of another step than the weights' is left out.

    Raises:
        ArtifactError: there is no checkpoint.
    """
    saved = read_run(folder, ("network.", "average."))
    facts = saved.facts
    clock = Clock(
        int(facts["step"]), int(facts["samples"]), float(facts["seconds"]), int(facts["stage"])
    )
    pick, states = saved.tensors, saved.states_at(clock.step)
    return Checkpoint(pick["network."], pick["average."], states, clock, facts["variant"])
