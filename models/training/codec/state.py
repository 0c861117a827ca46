"""Save and restore everything that a codec training needs to go on."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from prunus.models.training.pose.state import Average, Clock
from prunus.models.training.saved_run import MEMORY, WEIGHTS, read_run


@dataclass(frozen=True)
class CodecCheckpoint:
    """What `save_codec` wrote.

    Attributes:
        network: State of the network.
        average: Its exponential average.
        judge: State of the discriminator, empty where there is none.
        optimisers: Optimiser states, None when they are of another step than the weights.
        clock: What the run has consumed.
        config: Sizes of the network, as plain values.
    """

    network: dict[str, torch.Tensor]
    average: dict[str, torch.Tensor]
    judge: dict[str, torch.Tensor]
    optimisers: list[dict[str, object]] | None
    clock: Clock
    config: dict[str, int]


def save_codec(
    folder: Path,
    network: nn.Module,
    judge: nn.Module | None,
    *,
    average: Average,
    optimisers: list[torch.optim.Optimizer],
    clock: Clock,
    config: dict[str, int],
) -> None:
    """Write weights, average, optimisers and clock so that a kill never leaves half a file.

    The optimiser file carries the step of its weights, and is renamed last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"network.{k}": v.contiguous() for k, v in network.state_dict().items()}
    tensors |= {f"average.{k}": v.contiguous() for k, v in average.state.items()}
    if judge is not None:
        tensors |= {f"judge.{k}": v.contiguous() for k, v in judge.state_dict().items()}
    facts = {"clock": json.dumps(dataclasses.asdict(clock)), "config": json.dumps(config)}
    weights, memory = folder / WEIGHTS, folder / MEMORY
    save_file(tensors, f"{weights}.part", metadata=facts)
    states = [optimiser.state_dict() for optimiser in optimisers]
    torch.save({"step": clock.step, "states": states}, f"{memory}.part")
    os.replace(f"{weights}.part", weights)
    os.replace(f"{memory}.part", memory)


def load_saved_codec(folder: Path) -> CodecCheckpoint:
    """Read a checkpoint.

    Raises:
        ArtifactError: there is none.
    """
    saved = read_run(folder, ("network.", "average.", "judge."))
    clock = Clock(**json.loads(saved.facts["clock"]))
    pick, states = saved.tensors, saved.states_at(clock.step)
    return CodecCheckpoint(
        pick["network."], pick["average."], pick["judge."], states, clock,
        json.loads(saved.facts["config"]),
    )  # fmt: skip
