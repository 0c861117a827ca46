"""Weights of Dolphin that were trained by the recipe of prunus, and what must be known to use them.

A safetensors file with the state dict; its header says which lips the network was shown, what the
level of its voice means, and where the weights come from.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from prunus.models.checkpoints.header import read_entry
from prunus.runtime.errors import ArtifactError

_KEY = "prunus.separator"
Drawing = Literal["picture", "lips"]
Level = Literal["free", "relative"]


@dataclass(frozen=True, slots=True)
class OwnDolphin:
    """What the header says.

    Attributes:
        variant: Size of the network.
        origin: One sentence about who trained it on what.
        licence: Of the weights.
        drawing: See `MouthPreprocess.drawing`.
        level: See `SeparatorPostprocess.level`.
    """

    variant: str
    origin: str
    licence: str
    drawing: Drawing = "picture"
    level: Level = "free"

    def __post_init__(self) -> None:
        if self.drawing not in get_args(Drawing) or self.level not in get_args(Level):
            raise ArtifactError(
                f"The weights want lips as '{self.drawing}' and a level '{self.level}'; expected "
                f"one of {list(get_args(Drawing))} and of {list(get_args(Level))}.",
                "The file may come from another version of prunus.",
            )

    def header(self) -> dict[str, str]:
        """Return the entry of a safetensors header."""
        return {_KEY: json.dumps(dataclasses.asdict(self), sort_keys=True)}


def read_own(path: str | Path) -> OwnDolphin | None:
    """Return what the header says; None for weights that are not ours.

    Raises:
        ArtifactError: the header is ours and cannot be read.
    """
    entry = read_entry(path, _KEY)
    if not entry:
        return None
    try:
        return OwnDolphin(**entry)
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"The header of {path} cannot be read: {error}.") from None
