"""Read what a training left in its folder: weights with facts, and the optimisers' memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from prunus.runtime.errors import ArtifactError

WEIGHTS, MEMORY = "weights.safetensors", "optimiser.pt"


@dataclass(frozen=True)
class SavedRun:
    """A folder's contents.

    Attributes:
        facts: Metadata of the weights file.
        tensors: Prefix -> name without it -> tensor.
        memory: ``step`` and optimiser ``states``; None without a file.
    """

    facts: dict[str, str]
    tensors: dict[str, dict[str, torch.Tensor]]
    memory: dict[str, Any] | None

    def states_at(self, step: int) -> Any:
        """Return the optimisers' states, None where they are missing or of another step."""
        return self.memory["states"] if self.memory and self.memory["step"] == step else None


def read_run(folder: Path, prefixes: Sequence[str]) -> SavedRun:
    """Read a folder.

    Args:
        folder: Of the training.
        prefixes: By which tensors are told apart, e.g. ``network.``.

    Raises:
        ArtifactError: there is no checkpoint.
    """
    weights, memory = folder / WEIGHTS, folder / MEMORY
    if not weights.is_file():
        raise ArtifactError(
            f"no checkpoint found in {folder}",
            "start a training first, or name its folder with --out",
        )
    with safe_open(str(weights), "pt") as file:
        facts = file.metadata()
    tensors = load_file(str(weights))
    saved = None
    if memory.is_file():
        saved = torch.load(memory, weights_only=True, map_location="cpu")
    pick = {
        prefix: {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        for prefix in prefixes
    }
    return SavedRun(facts, pick, saved)
