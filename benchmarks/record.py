"""Write what a benchmark measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prunus.runtime.card.artifact import atomic_path


def write_record(path: Path, body: dict[str, Any]) -> None:
    """Write a record as sorted JSON, whole or not at all; paths in it are relative to here."""
    text = json.dumps(body, sort_keys=True, indent=1).replace(f"{Path.cwd()}/", "")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
