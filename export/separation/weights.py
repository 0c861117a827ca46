"""Which numbers go into an exported Dolphin, and what the card says about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from prunus.export.common.weights import Ways, find, find_again, shipped_entry
from prunus.models import zoo
from prunus.models.checkpoints.dolphin import LICENCE, read_dolphin, weights_file
from prunus.models.checkpoints.dolphin_nano import Drawing, Level, read_own
from prunus.models.separation.config import DolphinConfig
from prunus.models.separation.deployed import enliven
from prunus.models.separation.dolphin import Dolphin
from prunus.runtime.card.artifact import sha256_of
from prunus.runtime.card.card import Weights


@dataclass(frozen=True, slots=True)
class SeparatorWeights:
    """Weights and their provenance.

    Attributes:
        spec: What the card says.
        state: Parameter name -> tensor; None for random weights.
        seed: Seed of random weights.
        drawing: Which lips the network was shown, see `MouthPreprocess`.
        level: What the level of its voice means, see `SeparatorPostprocess`.
    """

    spec: Weights
    state: Mapping[str, torch.Tensor] | None
    seed: int = 0
    drawing: Drawing = "picture"
    level: Level = "free"


def find_weights(
    config: DolphinConfig, checkpoint: str | Path | None = None, seed: int = 0
) -> SeparatorWeights:
    """Choose the weights of an export, see `prunus.export.common.weights.find`.

    Args:
        config: The network.
        checkpoint: Released weights (folder or file), a file of our own recipe, ``random`` or None.
        seed: Of random weights.

    Raises:
        ArtifactError, UsageError: see `read_dolphin`.
    """
    return find(_ways(config), checkpoint, seed)


def weights_of(
    spec: Weights, config: DolphinConfig, checkpoint: str | Path | None = None
) -> SeparatorWeights:
    """Find the very weights that a card names, see `prunus.export.common.weights.find_again`."""
    return find_again(_ways(config), spec, checkpoint)


def _ways(config: DolphinConfig) -> Ways[SeparatorWeights]:
    def read(checkpoint: Path) -> SeparatorWeights:
        imported = read_dolphin(checkpoint, config.variant)
        path = weights_file(checkpoint)
        own = read_own(path)
        if own is not None:
            spec = Weights(own.origin, sha256_of(path), own.licence, True)
            return SeparatorWeights(spec, imported.state, 0, own.drawing, own.level)
        origin = f"Dolphin checkpoint {path.name}, supplied by the user"
        return SeparatorWeights(Weights(origin, sha256_of(path), LICENCE, True), imported.state)

    def shipped(sha256: str | None) -> SeparatorWeights | None:
        entry = shipped_entry(sha256, model="dolphin", variant=config.variant)
        if entry is None:
            return None
        zoo.verify(entry)
        return read(entry.path)

    return Ways(read, lambda spec, seed: SeparatorWeights(spec, None, seed), shipped)


def apply_weights(network: Dolphin, weights: SeparatorWeights) -> None:
    """Load weights into a network, strictly; random ones are drawn."""
    if weights.state is None:
        enliven(network, weights.seed)
    else:
        network.load_state_dict(dict(weights.state), strict=True)
