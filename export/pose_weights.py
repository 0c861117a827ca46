"""Which numbers go into an exported pose network, and what the card says about them."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from prunus.runtime.artifact import sha256_of
from prunus.runtime.card import Weights
from prunus.runtime.errors import ArtifactError, MissingDependencyError, UsageError

if TYPE_CHECKING:
    from prunus.models.pose.evitpose import EViTPose, EViTPoseConfig

RANDOM = "random"
_SHIPPED = {("tiny", "subpixel", 17): "evitpose_tiny_coco17"}
_SHIPPED_ORIGIN = "trained by prunus on rendered people and teacher-labelled frames"
_SHIPPED_LICENCE = "Apache-2.0"


@dataclass(frozen=True, slots=True)
class PoseWeights:
    """Weights and their provenance.

    Attributes:
        spec: What the card says.
        state: Parameter name -> tensor; None for random weights.
        seed: Seed of the initialisation.
    """

    spec: Weights
    state: Mapping[str, torch.Tensor] | None
    seed: int = 0


def find_weights(
    config: EViTPoseConfig, checkpoint: str | Path | None = None, seed: int = 0
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
        return _from_file(Path(checkpoint), "", "")
    shipped = shipped_checkpoint(config) if checkpoint is None else None
    if shipped is not None:
        return _from_file(shipped, _SHIPPED_ORIGIN, _SHIPPED_LICENCE)
    if seed < 0:
        raise UsageError(f"Got the seed {seed}; expected 0 or more.")
    origin = f"random initialisation, seed {seed}: for benchmarks only"
    return PoseWeights(Weights(origin, f"{RANDOM}:{seed}", "Apache-2.0", False), None, seed)


def weights_of(
    spec: Weights, config: EViTPoseConfig, checkpoint: str | Path | None = None
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
    path = Path(checkpoint) if checkpoint is not None else shipped_checkpoint(config)
    if path is None or (checkpoint is None and sha256_of(path) != spec.sha256):
        raise ArtifactError(
            f"The weights of this model (sha256 {spec.sha256[:12]}...) do not come with prunus.",
            "Give the file that was exported with --checkpoint.",
        )
    found = _from_file(path, spec.origin, spec.licence)
    if found.spec.sha256 != spec.sha256:
        raise ArtifactError(
            f"{path} has sha256 {found.spec.sha256[:12]}...; the model was exported from "
            f"{spec.sha256[:12]}...",
            "Give the file that was exported, or export again.",
        )
    return found


def apply_weights(network: EViTPose, weights: PoseWeights) -> None:
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
            f"The checkpoint does not fit {network.config.variant}-{network.config.head}: it "
            f"{', '.join(details)} ({len(missing) + len(extra) + len(wrong)} differences).",
            "Choose the variant, head, fill and joints that it was trained with.",
        )
    state = {k: v.to(own[k].dtype) for k, v in weights.state.items() if k in own}
    network.load_state_dict(state, strict=False)


def _counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _shape_note(name: str, own: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    return f"has {name} {list(state[name].shape)}, expected {list(own[name].shape)}"


def shipped_checkpoint(config: EViTPoseConfig) -> Path | None:
    """Return the shipped weights file that fits a network, None when there is none."""
    name = _SHIPPED.get((config.variant, config.head, config.joints))
    spec = importlib.util.find_spec("prunus.models")
    if name is None or config.fill == "mask" or spec is None:
        return None
    folders = [Path(folder) / "weights" for folder in spec.submodule_search_locations or ()]
    files = [folder / f"{name}.safetensors" for folder in folders]
    return next((path for path in files if path.is_file()), None)


def _from_file(path: Path, origin: str, licence: str) -> PoseWeights:
    if not path.is_file():
        raise ArtifactError(f"Checkpoint not found: {path}.", "Give a .safetensors or .pth file.")
    state = read_state(path)
    # Files may come from anywhere: their name says more than a guess would.
    spec = Weights(
        origin or f"checkpoint {path.name}", sha256_of(path), licence or "see checkpoint", True
    )
    return PoseWeights(spec, state)


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read a checkpoint of prunus (``.safetensors`` or a plain ``torch.save`` of a state dict).

    Raises:
        ArtifactError: not readable, or not a dictionary of tensors.
    """
    try:
        if path.suffix == ".safetensors":
            try:
                from safetensors.torch import load_file
            except ImportError:
                raise MissingDependencyError("safetensors", "models", "Reading weights") from None
            return dict(load_file(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except MissingDependencyError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ArtifactError(
            f"Cannot read the checkpoint {path}: {reason[:150]}.", "Copy or download it again."
        ) from None
    if not isinstance(loaded, dict) or not loaded:
        raise ArtifactError(f"{path} holds a {type(loaded).__name__}; expected a state dict.")
    for key in ("state_dict", "model"):
        if isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    tensors = {str(k): v for k, v in loaded.items() if isinstance(v, torch.Tensor)}
    if not tensors:
        raise ArtifactError(f"{path} holds no tensors.", "Give a state dict.")
    return tensors
