"""What an evaluation gives: scores for people and for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from prunus.runtime.json_text import json_text


class Scores(Protocol):
    """Scores of a model; where there is a `skipped`, it names what could not be judged."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""

    def to_text(self) -> str:
        """Return a short table."""


def to_json(scores: Scores) -> str:
    """Return sorted, indented JSON."""
    return json_text(scores.to_dict(), indent=1)


def save(scores: Scores, path: Path | None) -> None:
    """Write the scores as JSON, whole or not at all; nothing for None."""
    if path is None:
        return
    from prunus.runtime.card.artifact import write_whole

    write_whole(path, to_json(scores) + "\n")
