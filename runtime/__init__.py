"""Run prunus artifacts: card, sessions, tasks, pipeline. Needs numpy alone until `open`."""

if __name__ != "prunus.runtime":
    raise ImportError(
        f"Imported as '{__name__}', expected 'prunus.runtime'. "
        "Install prunus first: pip install -e ."
    )

from prunus.runtime.card import ModelCard
from prunus.runtime.errors import PrunusError
from prunus.runtime.session import BackendOptions, Session, open

__all__ = ["BackendOptions", "ModelCard", "PrunusError", "Session", "open"]
