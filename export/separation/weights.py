"""Which numbers go into an exported Dolphin, and what the card says about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from prunus.models import zoo
from prunus.models.checkpoints.dolphin import LICENCE, read_dolphin, weights_file
from prunus.models.checkpoints.dolphin_nano import Drawing, Level, read_own
from prunus.models.separation.config import DolphinConfig
from prunus.models.separation.deployed import enliven
from prunus.models.separation.dolphin import Dolphin
from prunus.runtime.card.artifact import sha256_of
from prunus.runtime.card.card import Weights
from prunus.runtime.errors import ArtifactError, UsageError

RANDOM = "random"


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
    """Choose the weights of an export.

    Args:
        config: The network.
        checkpoint: Released weights (folder or file), or a file of our own recipe; ``random``:
            random ones, which the card labels as untrained; None: the shipped ones where they fit
            the network, else random ones.
        seed: Seed of random weights.

    Raises:
        ArtifactError, UsageError: see `read_dolphin`.
    """
    shipped = _shipped(config) if checkpoint is None else None
    if shipped is not None:
        zoo.verify(shipped)
        checkpoint = shipped.path
    if checkpoint is not None and str(checkpoint) != RANDOM:
        imported = read_dolphin(checkpoint, config.variant)
        path = weights_file(checkpoint)
        own = read_own(path)
        if own is not None:
            spec = Weights(own.origin, sha256_of(path), own.licence, True)
            return SeparatorWeights(spec, imported.state, 0, own.drawing, own.level)
        origin = f"Dolphin checkpoint {path.name}, supplied by the user"
        return SeparatorWeights(Weights(origin, sha256_of(path), LICENCE, True), imported.state)
    if seed < 0:
        raise UsageError(f"Got the seed {seed}; expected 0 or more.")
    origin = f"random numbers, seed {seed}: for speed and memory only"
    return SeparatorWeights(Weights(origin, f"{RANDOM}:{seed}", "Apache-2.0", False), None, seed)


def weights_of(
    spec: Weights, config: DolphinConfig, checkpoint: str | Path | None = None
) -> SeparatorWeights:
    """Find the very weights that a card names.

    Raises:
        ArtifactError: no file is given for weights that are not random, or it is another one.
    """
    kind, _, seed = spec.sha256.partition(":")
    if kind == RANDOM:
        return SeparatorWeights(spec, None, int(seed))
    shipped = _shipped(config)
    if checkpoint is None and (shipped is None or shipped.sha256 != spec.sha256):
        raise ArtifactError(
            f"The weights of this model (sha256 {spec.sha256[:12]}...) are not shipped.",
            "Give the file that was exported with --checkpoint.",
        )
    found = find_weights(config, checkpoint)
    if found.spec.sha256 != spec.sha256:
        raise ArtifactError(
            f"{checkpoint} has sha256 {found.spec.sha256[:12]}...; the model was exported from "
            f"{spec.sha256[:12]}...",
            "Give the file that was exported, or export again.",
        )
    return found


def apply_weights(network: Dolphin, weights: SeparatorWeights) -> None:
    """Load weights into a network, strictly; random ones are drawn."""
    if weights.state is None:
        enliven(network, weights.seed)
    else:
        network.load_state_dict(dict(weights.state), strict=True)


def _shipped(config: DolphinConfig) -> zoo.Entry | None:
    return zoo.find_checkpoint(model="dolphin", variant=config.variant)
