"""Run prunus artifacts: card, sessions, tasks, pipeline. Needs numpy alone until `open`."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunus.runtime.card.card import ModelCard
    from prunus.runtime.errors import PrunusError
    from prunus.runtime.session.base import BackendOptions, Session, open

__all__ = ["BackendOptions", "ModelCard", "PrunusError", "Session", "open"]

# Loaded at first use: the command line comes through this package for errors and options alone.
_HOMES = {"ModelCard": "card.card", "PrunusError": "errors"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'session.base')}"), name)
