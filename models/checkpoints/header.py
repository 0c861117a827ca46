"""What a safetensors file says about itself, read without its tensors and without PyTorch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prunus.models.unpack import xz_blocks
from prunus.runtime.card.reading import parse_json
from prunus.runtime.errors import ArtifactError
from prunus.runtime.limits import SAFETENSORS_HEADER_BYTES

SAFETENSORS = (".safetensors", ".safetensors.xz")


def read_header(path: str | Path) -> dict[str, str]:
    """Return the free text entries of a ``.safetensors`` file, also of a compressed one.

    Empty for other files and for damaged ones: whoever reads the tensors says what is wrong.
    """
    path = Path(path)
    if not path.name.endswith(SAFETENSORS) or not path.is_file():
        return {}
    try:
        if path.suffix == ".xz":
            table = _table(xz_blocks(path), str(path))
        else:
            with path.open("rb") as file:
                table = _table(iter(lambda: file.read(1 << 20), b""), str(path))
    except (OSError, ArtifactError):
        return {}
    entries = table.get("__metadata__", {}) if isinstance(table, dict) else {}
    return {str(k): str(v) for k, v in entries.items()} if isinstance(entries, dict) else {}


def read_entry(path: str | Path, key: str) -> dict[str, Any]:
    """Return what one entry of the header says, written as a JSON object; empty without it.

    Raises:
        ArtifactError: the entry is not a JSON object.
    """
    text = read_header(path).get(key)
    entry = {} if text is None else parse_json(text, f"The entry '{key}' in the header of {path}")
    if not isinstance(entry, dict):
        raise ArtifactError(
            f"The entry '{key}' in the header of {path} is a {type(entry).__name__}; expected an "
            "object.",
            "Copy or import the weights again.",
        )
    return entry


def _table(blocks: Iterable[bytes], title: str) -> object:
    """Return the parsed header at the start of the blocks; no more of them are taken than needed.

    Raises:
        ArtifactError: it is longer than permitted, cut off, or not JSON.
    """
    data = bytearray()
    for block in blocks:
        data += block
        length = int.from_bytes(data[:8], "little")
        if len(data) < 8:
            continue
        SAFETENSORS_HEADER_BYTES.check(length, title, ArtifactError)
        if len(data) >= 8 + length:
            return parse_json(bytes(data[8 : 8 + length]), title)
    raise ArtifactError(f"{title} ends inside its header.", "Copy or download it again.")
