"""What a safetensors file says about itself, read without its tensors and without PyTorch."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

SAFETENSORS = (".safetensors", ".safetensors.xz")
_LARGEST = 100 * 2**20  # bytes, the limit of the format


def read_header(path: str | Path) -> dict[str, str]:
    """Return the free text entries of a ``.safetensors`` file, also of a compressed one.

    Empty for other files and for damaged ones: whoever reads the tensors says what is wrong.
    """
    path = Path(path)
    if not path.name.endswith(SAFETENSORS) or not path.is_file():
        return {}
    try:
        with lzma.open(path) if path.suffix == ".xz" else path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            table = json.loads(file.read(length)) if length <= _LARGEST else {}
    except (OSError, EOFError, ValueError, lzma.LZMAError):
        return {}
    entries = table.get("__metadata__", {}) if isinstance(table, dict) else {}
    return {str(key): str(value) for key, value in entries.items()}
