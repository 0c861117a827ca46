"""Which numbers go into an exported pose network, and what the card says about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from prunus.export.common.weights import Ways, find, find_again, shipped_entry
from prunus.models.checkpoints.read import read_checkpoint
from prunus.models.checkpoints.vitpose import convert_vitpose
from prunus.models.pose.evitpose import EViTPoseConfig
from prunus.models.zoo import load_checkpoint
from prunus.runtime.card.artifact import sha256_of
from prunus.runtime.card.card import Weights
from prunus.runtime.errors import ArtifactError


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
    """Choose the weights of an export, see `prunus.export.common.weights.find`."""
    return find(_ways(config), checkpoint, seed)


def weights_of(
    spec: Weights, config: PoseConfig, checkpoint: str | Path | None = None
) -> PoseWeights:
    """Find the very weights that a card names, see `prunus.export.common.weights.find_again`."""
    return find_again(_ways(config), spec, checkpoint)


def _ways(config: PoseConfig) -> Ways[PoseWeights]:
    return Ways(
        read=lambda path: _from_file(path, config),
        untrained=lambda spec, seed: PoseWeights(spec, None, seed),
        shipped=lambda sha256: _shipped(config, sha256),
    )


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


def _shipped(config: PoseConfig, sha256: str | None) -> PoseWeights | None:
    if isinstance(config, EViTPoseConfig) and config.fill == "mask":
        return None  # its token is a parameter that other fills do not train
    wanted = {key: getattr(config, key) for key in ("model", "variant", "head", "joints")}
    entry = shipped_entry(sha256, **wanted)
    if entry is None:
        return None
    levels = tuple(str(entry.config.get("bf16_levels", "")).split())
    spec = Weights(entry.origin, entry.sha256, entry.licence, True)
    return PoseWeights(spec, load_checkpoint(entry.name), bf16_levels=levels)


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
