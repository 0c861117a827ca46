"""Write a trained network's weights and, beside them, the record of what they were made of."""

from __future__ import annotations

import argparse
import json
import lzma
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from prunus.models.training.state import Clock
from prunus.runtime.card.artifact import atomic_path, sha256_of, write_whole

START_RECORD = "start.json"  # in the folder of a run that began with somebody's weights

# Numbers in half precision are pairs of bytes: told so, LZMA makes them up to 5 % smaller.
_PAIRS = [{
    "id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 1, "pb": 1,
}]  # fmt: skip


def record_path(weights: Path) -> Path:
    """Return the path of the record beside a weights file: ``<name>.json``."""
    return weights.with_name(weights.name.partition(".safetensors")[0] + ".json")


def record_start(run: Path, weights: Path) -> None:
    """Note in a run's folder which weights it begins with, and what is known about them."""
    beside = record_path(weights)
    known = json.loads(beside.read_text()) if beside.is_file() else {}
    facts = (
        "trained_by", "steps", "samples_seen", "wall_minutes", "hardware", "input_sizes", "trunk"
    )  # fmt: skip
    record = {"sha256": sha256_of(weights), **{k: known[k] for k in facts if k in known}}
    if "continued_from" in known:
        record["continued_from"] = known["continued_from"]
    write_whole(run / START_RECORD, json.dumps(record) + "\n")


def run_facts(clock: Clock, device: str = "cpu", note: str = "no GPU") -> dict[str, Any]:
    """Return what every record says of how weights were made, as plain data.

    Args:
        clock: Of the training.
        device: Device of the training.
        note: What to say of a CPU besides its cores.
    """
    cores = f"{os.cpu_count()}-core CPU ({platform.machine()}), {note}"
    return {
        "steps": clock.step,
        "wall_minutes": round(clock.seconds / 60, 1),
        "hardware": cores if device == "cpu" else device,
        "torch": torch.__version__.split("+")[0],
        "licence": "Apache-2.0",
    }


def arithmetic_of(facts: Mapping[str, str], where: str = "") -> str:
    """Return in what a run computed; runs that say nothing are older than the choice.

    Args:
        facts: Of its weights.
        where: What alone was in bfloat16, e.g. `` of the stacks``.
    """
    return "float32" if facts.get("bf16") == "False" else f"bfloat16 autocast{where}"


def used_sources(
    sources: Mapping[str, Mapping[str, str]], pictures: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Return the sources that pictures were taken from, with their number.

    Args:
        sources: What, labels and licence, by folder of the cache.
        pictures: Pictures used, by folder.
    """
    return [
        {**facts, "pictures": pictures[name]}
        for name, facts in sources.items()
        if pictures.get(name)
    ]


def ship_parser(doc: str | None, target: Path) -> argparse.ArgumentParser:
    """Return the command line of a script that ships a run.

    Args:
        doc: The module's text, whose first line is shown.
        target: Default file.
    """
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--output", "-o", type=Path, default=target, help="the file to write")
    return parser


def write_weights(
    target: Path,
    state: Mapping[str, Tensor],
    header: Mapping[str, str],
    record: Mapping[str, Any],
) -> Path:
    """Write ``.safetensors`` or ``.safetensors.xz``, and the record with name, hash and size.

    Args:
        target: The file; replaced only when the new one is complete.
        state: Parameter name -> tensor.
        header: Free text inside the file, see `prunus.models.checkpoints.header`.
        record: Provenance as plain data.

    Raises:
        SourceError: the folder cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    packed = save(dict(state), metadata=dict(header))
    if target.suffix == ".xz":
        packed = lzma.compress(packed, filters=_PAIRS)
    with atomic_path(target) as temporary:
        temporary.write_bytes(packed)
    about = {"file": target.name, "sha256": sha256_of(target), "size": target.stat().st_size}
    write_whole(record_path(target), json.dumps({**record, **about}, indent=2) + "\n")
    return target
