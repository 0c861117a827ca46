"""Which export script a file came from: the one table that `check` and `bench` go through.

A script rebuilds the PyTorch module behind a file and finds real inputs for it. It is a module of
`prunus.export` with two functions::

    reference_module(card, checkpoint=None) -> torch.nn.Module
    load_samples(card, source=None, limit=64) -> Samples
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, cast

from prunus.runtime.card.card import ModelCard
from prunus.runtime.errors import UsageError

if TYPE_CHECKING:
    import torch

    from prunus.export.common.samples import Samples

# Model family on the card -> module of prunus.export.
SCRIPTS: Mapping[str, str] = MappingProxyType(
    {
        "dolphin": "dolphin",
        "edaformer": "edaformer",
        "evitpose": "evitpose",
        "freecodec": "freecodec",
        "fusecodec": "fusecodec",
        "nsfcodec": "nsfcodec",
        "unitranspose": "unitranspose",
        "wavtokenizer": "wavtokenizer",
    }
)


class Script(Protocol):
    """What a script offers besides its command line."""

    def reference_module(
        self, card: ModelCard, checkpoint: str | Path | None = None
    ) -> torch.nn.Module:
        """Rebuild the float32 module that a file was exported from: inputs and outputs as carded.

        Args:
            card: The card of the file.
            checkpoint: The weights that were exported; None for shipped and for random ones.
        """

    def load_samples(
        self, card: ModelCard, source: str | Path | None = None, limit: int = 64
    ) -> Samples:
        """Find real inputs.

        Args:
            card: The card of the file.
            source: A file or folder that the task understands; None for the bundled media.
            limit: At most this many samples.
        """


def judged_module(card: ModelCard, checkpoint: str | Path | None = None) -> torch.nn.Module:
    """Return the module that a file is held to: float32, or float64 where its script offers one.

    Two float32 computations of a network of a hundred layers differ by the errors of both; a
    script with an ``exact_module(card, checkpoint)`` leaves those of the file alone.
    """
    script = script_of(card)
    make = getattr(script, "exact_module", script.reference_module)
    return cast("torch.nn.Module", make(card, checkpoint))


def script_of(card: ModelCard) -> Script:
    """Return the script of the card's model.

    Raises:
        UsageError: this model was not exported by prunus.
    """
    if card.model not in SCRIPTS:
        raise UsageError(
            f"No PyTorch network stands behind {card.name}.",
            f"Models with one: {', '.join(sorted(SCRIPTS))}.",
        )
    return cast(Script, importlib.import_module(f"prunus.export.{SCRIPTS[card.model]}"))
