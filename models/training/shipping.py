"""Write a trained network's weights and, beside them, the record of what they were made of."""

from __future__ import annotations

import json
import lzma
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from prunus.runtime.card.artifact import atomic_path, sha256_of


def record_path(weights: Path) -> Path:
    """Return the path of the record beside a weights file: ``<name>.json``."""
    return weights.with_name(weights.name.partition(".safetensors")[0] + ".json")


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
        packed = lzma.compress(packed, preset=9 | lzma.PRESET_EXTREME)
    with atomic_path(target) as temporary:
        temporary.write_bytes(packed)
    about = {"file": target.name, "sha256": sha256_of(target), "size": target.stat().st_size}
    with atomic_path(record_path(target)) as temporary:
        temporary.write_text(json.dumps({**record, **about}, indent=2) + "\n", encoding="utf-8")
    return target
