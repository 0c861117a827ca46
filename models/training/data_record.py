"""What a run learns from, noted in its folder: a run that has begun goes on with nothing else.

A step's batch is drawn from all of the data, so that one picture more or another file of the same
name gives other batches from then on; without a note nobody would see it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prunus.runtime.card.artifact import write_whole
from prunus.runtime.errors import UsageError

DATA_RECORD = "data.json"
_HASHES = "sha256"


def fingerprint(data: Any) -> str:
    """Return the hex SHA-256 of data: arrays, bytes, texts, numbers, and lists and dataclasses.

    >>> fingerprint(["ab", "c"]) == fingerprint(["a", "bc"])
    False
    """
    digest = hashlib.sha256()
    _update(digest, data)
    return digest.hexdigest()


def _update(digest: Any, data: Any) -> None:
    if is_dataclass(data):
        data = [getattr(data, field.name) for field in fields(data)]
    if isinstance(data, list | tuple):
        digest.update(f"[{len(data)}]".encode())
        for item in data:
            _update(digest, item)
        return
    if isinstance(data, np.ndarray):
        digest.update(f"{data.dtype.str}{data.shape}".encode())
        digest.update(np.ascontiguousarray(data).data)
        return
    content = data if isinstance(data, bytes) else str(data).encode()
    digest.update(f"{type(data).__name__}{len(content)}:".encode() + content)


def note_data(
    run: Path,
    counts: Mapping[str, int],
    hashes: Mapping[str, str],
    *,
    begun: bool,
    older: bool = True,
) -> None:
    """Write into a run's folder what it learns from.

    Args:
        run: The folder; created where it is missing.
        counts: Pieces by set: pictures, recordings, files.
        hashes: What the data are, by set, and whatever else they are made of.
        begun: The run goes on, and must go on with the data it began with.
        older: Let a folder without a record pass, and one without hashes, as earlier versions
            left them.

    Raises:
        UsageError: the data of a run that has begun have changed; nothing is written.
    """
    path = run / DATA_RECORD
    now = {**counts, _HASHES: dict(hashes)}
    if begun and (path.is_file() or not older):
        before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if changed := _changed(before, now, older):
            was, got = (_told(record, changed) for record in (before, now))
            raise UsageError(
                f"The data of the run in {run} have changed: it began with {was}, now there are "
                f"{got}.",
                "Bring the old data back, start another folder with --out, or begin anew with "
                "--resume no.",
            )
    run.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(now) + "\n")


def noted_counts(run: Path) -> dict[str, int]:
    """Return the pieces of each set that a run learned from."""
    record = json.loads((run / DATA_RECORD).read_text(encoding="utf-8"))
    return {name: count for name, count in record.items() if name != _HASHES}


def _flat(record: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
    own = {("", name): value for name, value in record.items() if name != _HASHES}
    return own | {(_HASHES, name): value for name, value in record.get(_HASHES, {}).items()}


def _changed(
    before: Mapping[str, Any], now: Mapping[str, Any], older: bool
) -> list[tuple[str, str]]:
    was, got = _flat(before), _flat(now)
    keys = [k for k in {**was, **got} if not (older and _HASHES not in before and k[0] == _HASHES)]
    return [key for key in keys if was.get(key) != got.get(key)]


def _told(record: Mapping[str, Any], keys: list[tuple[str, str]]) -> str:
    flat = _flat(record)
    return ", ".join(
        f"{flat.get(key)} {key[1]}" if not key[0] else f"{key[1]} {str(flat.get(key))[:12]}"
        for key in keys
    )
