"""Run prunus artifacts: card, sessions, tasks, pipeline. Needs numpy alone until `open`."""

from prunus.runtime.card.card import ModelCard
from prunus.runtime.errors import PrunusError
from prunus.runtime.session.base import BackendOptions, Session, open

__all__ = ["BackendOptions", "ModelCard", "PrunusError", "Session", "open"]
