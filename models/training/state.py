"""What a training needs to go on: its clock, averaged weights, optimisers, and its folder."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from prunus.runtime import host
from prunus.runtime.errors import ArtifactError

WEIGHTS, MEMORY = "weights.safetensors", "optimiser.pt"
State = Mapping[str, Tensor]


@dataclass
class Clock:
    """Count what a run has consumed, resumed parts included."""

    step: int = 0
    samples: int = 0
    seconds: float = 0.0
    stage: int = 0


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

    def put(self, state: State, device: torch.device) -> None:
        """Take over a saved average."""
        self.state = {k: v.to(device) for k, v in state.items()}


class Optimisers:
    """Several optimisers at one learning rate; a group's ``share`` multiplies it."""

    def __init__(self, all: Sequence[torch.optim.Optimizer], rate: float) -> None:
        self.all = list(all)
        self._rate = rate

    def step(self, factor: float, only: int | None = None) -> None:
        """Update the weights with the learning rate times ``factor`` and clear the gradients.

        Args:
            factor: See `prunus.models.training.schedule.rate_factor`.
            only: Index of the one optimiser to step; None steps all.
        """
        for optimiser in self.all if only is None else [self.all[only]]:
            for group in optimiser.param_groups:
                group["lr"] = self._rate * factor * group.get("share", 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    def state(self) -> list[dict[str, Any]]:
        """Return the state of every optimiser."""
        return [optimiser.state_dict() for optimiser in self.all]

    def restore(self, states: Sequence[dict[str, Any]]) -> None:
        """Take over saved states; moments whose parameter changed size are dropped."""
        for optimiser, state in zip(self.all, states, strict=False):
            optimiser.load_state_dict(state)
            for parameter, values in list(optimiser.state.items()):
                moments = [v for v in values.values() if torch.is_tensor(v) and v.ndim > 0]
                if any(m.shape != parameter.shape for m in moments):
                    del optimiser.state[parameter]


def muon(matrices: Sequence[Tensor], rate: float, decay: float) -> torch.optim.Optimizer:
    """Return Muon (Jordan et al., 2024) for matrices, which need fewer samples with it than AdamW.

    Scaled to AdamW's step as in "Muon is Scalable for LLM Training" (2025).
    """
    return torch.optim.Muon(
        matrices, lr=rate, weight_decay=decay, momentum=0.95, ns_steps=4,
        adjust_lr_fn="match_rms_adamw",
    )  # fmt: skip


def adam(
    decayed: Sequence[Tensor], free: Sequence[Tensor], rate: float, decay: float, second: float
) -> torch.optim.Optimizer:
    """Return AdamW with and without weight decay; `second` is the memory of squared gradients."""
    groups: list[dict[str, Any]] = [
        {"params": list(decayed), "weight_decay": decay},
        {"params": list(free), "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, second), fused=True)


def adam_of(
    network: nn.Module, rate: float, decay: float, second: float = 0.98
) -> torch.optim.Optimizer:
    """Return AdamW for a whole network; vectors do not decay."""
    parameters = list(network.parameters())
    matrices = [p for p in parameters if p.ndim > 1]
    vectors = [p for p in parameters if p.ndim <= 1]
    return adam(matrices, vectors, rate, decay, second)


@dataclass(frozen=True)
class SavedRun:
    """What `write_run` left in a folder.

    Attributes:
        facts: Metadata of the weights file.
        parts: ``network``, ``average`` and what else was saved -> parameter name -> tensor.
        clock: What the run had consumed.
        optimisers: Optimiser states, None where they are missing or of another step.
    """

    facts: dict[str, str]
    parts: dict[str, dict[str, Tensor]]
    clock: Clock
    optimisers: list[dict[str, Any]] | None

    @property
    def network(self) -> dict[str, Tensor]:
        """The weights."""
        return self.parts["network"]

    @property
    def average(self) -> dict[str, Tensor]:
        """Their exponential average."""
        return self.parts["average"]


def write_run(
    folder: Path,
    parts: Mapping[str, State],
    optimisers: Optimisers,
    clock: Clock,
    facts: Mapping[str, str],
) -> None:
    """Write weights, optimisers and clock so that a kill never leaves half a file.

    The optimiser file carries the step of its weights, and is renamed last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"{p}.{k}": v.contiguous() for p, state in parts.items() for k, v in state.items()}
    weights, memory = folder / WEIGHTS, folder / MEMORY
    metadata = {**facts, "clock": json.dumps(asdict(clock))}
    save_file(tensors, f"{weights}.part", metadata=metadata)
    torch.save({"step": clock.step, "states": optimisers.state()}, f"{memory}.part")
    os.replace(f"{weights}.part", weights)
    os.replace(f"{memory}.part", memory)


def multiplies_bfloat16(device: str) -> tuple[bool, str]:
    """Tell whether a device multiplies bfloat16 in hardware, and by what that is known.

    Without it, float32 is many times faster: PyTorch then converts every operand.
    """
    kind = torch.device(device).type
    if kind == "cpu":
        flag = host.bfloat16_flag()
        told = f"which this CPU has ({flag})" if flag else "as this CPU does not multiply bfloat16"
        return bool(flag), told
    if kind == "cuda" and torch.cuda.is_available():
        able = torch.cuda.is_bf16_supported(including_emulation=False)
        name = torch.cuda.get_device_name(device)
        return able, f"which {name} has" if able else f"as {name} does not multiply bfloat16"
    return False, f"as it is not known whether {device} multiplies bfloat16"


def saved_in(folder: Path) -> bool:
    """Tell whether a folder holds a checkpoint."""
    return (folder / WEIGHTS).is_file()


def read_run(folder: Path) -> SavedRun:
    """Read a training's folder.

    Raises:
        ArtifactError: there is no checkpoint.
    """
    if not saved_in(folder):
        raise ArtifactError(
            f"no checkpoint found in {folder}",
            "start a training first, or name its folder with --out",
        )
    with safe_open(str(folder / WEIGHTS), "pt") as file:
        facts: dict[str, str] = file.metadata()
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in load_file(str(folder / WEIGHTS)).items():
        part, _, own = name.partition(".")
        parts[part][own] = tensor
    clock = _clock(facts)
    memory: dict[str, Any] = {"step": None}
    if (folder / MEMORY).is_file():
        memory = torch.load(folder / MEMORY, weights_only=True, map_location="cpu")
    states = memory["states"] if memory["step"] == clock.step else None
    return SavedRun(facts, dict(parts), clock, states)


def _clock(facts: Mapping[str, str]) -> Clock:
    if "clock" in facts:
        return Clock(**json.loads(facts["clock"]))
    kinds = {"step": int, "samples": int, "seconds": float, "stage": int}  # runs of version 0.1
    return Clock(**{name: kind(facts[name]) for name, kind in kinds.items()})
