"""Which numbers go into an export, and how a card's weights are found again: one way for all tasks.

A task says how it reads a file, what ships and what untrained means (`Ways`); the rest is here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from prunus.models import zoo
from prunus.runtime.card.card import Weights
from prunus.runtime.errors import ArtifactError

RANDOM = "random"


class Carded(Protocol):
    """Weights of any task."""

    @property
    def spec(self) -> Weights:
        """What the card says."""


W = TypeVar("W", bound=Carded)


@dataclass(frozen=True, slots=True)
class Ways(Generic[W]):
    """How one task comes by weights.

    Attributes:
        read: From an explicit file.
        untrained: Made of the card's entry and a seed.
        shipped: Those that ship: of the hash that a card names, or that fit the network when it is
            None; they are checked against their hash. None: there are none.
    """

    read: Callable[[Path], W]
    untrained: Callable[[Weights, int], W]
    shipped: Callable[[str | None], W | None] = lambda sha256: None


def shipped_entry(sha256: str | None, **wanted: object) -> zoo.Entry | None:
    """Return the row of shipped weights of a hash, or of the first that fit; None without any."""
    if sha256 is None:
        return zoo.find_checkpoint(**wanted)
    return next((entry for entry in zoo.entries() if entry.sha256 == sha256), None)


def find(ways: Ways[W], checkpoint: str | Path | None, seed: int) -> W:
    """Choose the weights of an export.

    Args:
        ways: Of the task.
        checkpoint: A file, ``random``, or None: the shipped ones where they fit, else random ones,
            which the card labels as untrained.
        seed: Of random weights.

    Raises:
        ArtifactError: the file is missing, damaged or of another network.
    """
    if checkpoint is not None and str(checkpoint) != RANDOM:
        return ways.read(Path(checkpoint))
    found = ways.shipped(None) if checkpoint is None else None
    if found is not None:
        return found
    origin = f"UNTRAINED random numbers, seed {seed}: for benchmarks only"
    return ways.untrained(Weights(origin, f"{RANDOM}:{seed}", "Apache-2.0", False), seed)


def find_again(ways: Ways[W], spec: Weights, checkpoint: str | Path | None = None) -> W:
    """Find the very weights that a card names.

    Args:
        ways: Of the task.
        spec: The card's entry.
        checkpoint: The file that was exported; None for shipped and for random weights.

    Raises:
        ArtifactError: no file is known to have the card's hash, or a given one has another.
    """
    kind, _, seed = spec.sha256.partition(":")
    if kind == RANDOM:
        return ways.untrained(spec, int(seed))
    found = ways.shipped(spec.sha256) if checkpoint is None else ways.read(Path(checkpoint))
    if found is not None and found.spec.sha256 == spec.sha256:
        return found
    if found is None or checkpoint is None:
        raise ArtifactError(
            f"The weights of this model (sha256 {spec.sha256[:12]}...) are not shipped.",
            "Give the file that was exported with --checkpoint.",
        )
    raise ArtifactError(
        f"{checkpoint} has sha256 {found.spec.sha256[:12]}...; the model was exported from "
        f"{spec.sha256[:12]}...",
        "Give the file that was exported, or export again.",
    )
