"""Which numbers go into an exported pose network, and what the card says about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from prunus.models.checkpoints.read import read_checkpoint
from prunus.models.checkpoints.vitpose import convert_vitpose
from prunus.models.pose.evitpose import EViTPoseConfig
from prunus.models.zoo import Entry, find_checkpoint, load_checkpoint
from prunus.runtime.card.artifact import sha256_of
from prunus.runtime.card.card import Weights
from prunus.runtime.errors import ArtifactError, UsageError

RANDOM = "random"


class PoseConfig(Protocol):
    """What weights are chosen by: any pose network's configuration."""

    @property
    def model(self) -> str:
        """Family, as on the card."""

    @property
    def variant(self) -> str:
        """Size."""

    @property
    def head(self) -> str:
        """Decoder."""

    @property
    def joints(self) -> int:
        """Joint tokens."""

    @property
    def height(self) -> int:
        """Input height in pixels."""

    @property
    def width(self) -> int:
        """Input width in pixels."""


@dataclass(frozen=True, slots=True)
class PoseWeights:
    """Weights and their provenance.

    Attributes:
        spec: What the card says.
        state: Parameter name -> tensor; None for random weights.
        seed: Seed of the initialisation.
        bf16_levels: Pruning levels at which these weights were measured to stay within the budget
            of half precision when OpenVINO computes in bfloat16.
    """

    spec: Weights
    state: Mapping[str, torch.Tensor] | None
    seed: int = 0
    bf16_levels: tuple[str, ...] = ()


def find_weights(
    config: PoseConfig, checkpoint: str | Path | None = None, seed: int = 0
) -> PoseWeights:
    """Choose the weights of an export.

    Args:
        config: The network.
        checkpoint: A weights file, ``random``, or None: the shipped ones where they fit the
            network, else random ones, which the card labels as untrained.
        seed: Seed of random weights.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    if checkpoint is not None and str(checkpoint) != RANDOM:
        return _from_file(Path(checkpoint), config)
    shipped = shipped_checkpoint(config) if checkpoint is None else None
    if shipped is not None:
        return _from_zoo(shipped)
    if seed < 0:
        raise UsageError(f"Got the seed {seed}; expected 0 or more.")
    origin = f"random initialisation, seed {seed}: for benchmarks only"
    return PoseWeights(Weights(origin, f"{RANDOM}:{seed}", "Apache-2.0", False), None, seed)


def weights_of(
    spec: Weights, config: PoseConfig, checkpoint: str | Path | None = None
) -> PoseWeights:
    """Find the very weights that a card names.

    Args:
        spec: The card's entry.
        config: The network.
        checkpoint: The file that was exported; None for shipped and random weights.

    Raises:
        ArtifactError: a given file has another hash, or no file is known to have the card's.
    """
    kind, _, seed = spec.sha256.partition(":")
    if kind == RANDOM:
        return PoseWeights(spec, None, int(seed))
    if checkpoint is None:
        shipped = shipped_checkpoint(config)
        if shipped is None or shipped.sha256 != spec.sha256:
            raise ArtifactError(
                f"The weights of this model (sha256 {spec.sha256[:12]}...) are not shipped.",
                "Give the file that was exported with --checkpoint.",
            )
        return _from_zoo(shipped)
    found = _from_file(Path(checkpoint), config)
    if found.spec.sha256 != spec.sha256:
        raise ArtifactError(
            f"{checkpoint} has sha256 {found.spec.sha256[:12]}...; the model was exported from "
            f"{spec.sha256[:12]}...",
            "Give the file that was exported, or export again.",
        )
    return found


def apply_weights(network: torch.nn.Module, weights: PoseWeights, config: PoseConfig) -> None:
    """Load weights into a network; every parameter must be there and fit.

    Raises:
        ArtifactError: a parameter is missing, unknown or of another shape.
    """
    if weights.state is None:
        return
    own = network.state_dict()
    # The counter of batches that a norm has seen plays no part in evaluation.
    missing = sorted(k for k in set(own) - set(weights.state) if not _counter(k))
    extra = sorted(k for k in set(weights.state) - set(own) if not _counter(k))
    wrong = [k for k in own if k in weights.state and own[k].shape != weights.state[k].shape]
    if missing or extra or wrong:
        details = [f"lacks {missing[0]}"] if missing else []
        details += [f"has the unknown {extra[0]}"] if extra else []
        details += [_shape_note(wrong[0], own, weights.state)] if wrong else []
        raise ArtifactError(
            f"The checkpoint does not fit {config.variant}-{config.head}: it "
            f"{', '.join(details)} ({len(missing) + len(extra) + len(wrong)} differences).",
            "Choose the variant, head, fill and joints that it was trained with.",
        )
    state = {k: v.to(own[k].dtype) for k, v in weights.state.items() if k in own}
    network.load_state_dict(state, strict=False)


def _counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _shape_note(name: str, own: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    return f"has {name} {list(state[name].shape)}, expected {list(own[name].shape)}"


def shipped_checkpoint(config: PoseConfig) -> Entry | None:
    """Return the shipped weights that fit a network, None when there are none."""
    if isinstance(config, EViTPoseConfig) and config.fill == "mask":
        return None  # its token is a parameter that other fills do not train
    wanted = {key: getattr(config, key) for key in ("model", "variant", "head", "joints")}
    return find_checkpoint(**wanted)


def _from_zoo(entry: Entry) -> PoseWeights:
    state = load_checkpoint(entry.name)
    levels = tuple(str(entry.config.get("bf16_levels", "")).split())
    spec = Weights(entry.origin, entry.sha256, entry.licence, True)
    return PoseWeights(spec, state, bf16_levels=levels)


def _from_file(path: Path, config: PoseConfig) -> PoseWeights:
    """Read weights of prunus, or for EViTPose those of ViTPose in any public layout."""
    state = read_checkpoint(path)
    origin, trained = f"checkpoint {path.name}", True
    if "joint_tokens" not in state and isinstance(config, EViTPoseConfig):
        imported = convert_vitpose(state, config)
        state = dict(imported.state)
        # Joint tokens rank the patches: until they are trained, so is nothing behind a cut.
        trained = not imported.fresh
        origin = f"ViTPose checkpoint {path.name}"
        if imported.fresh:
            origin += f", {len(imported.fresh)} parameters untrained"
    return PoseWeights(Weights(origin, sha256_of(path), "see checkpoint", trained), state)
