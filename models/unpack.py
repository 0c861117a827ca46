"""Shipped files that are stored compressed: unpacked once, into the user's cache.

``movenet.onnx.xz`` becomes ``<cache>/models/movenet.onnx``. The unpacked file is compared with its
hash before every use, so a damaged or outdated one is replaced, and a shared folder is safe.
"""

from __future__ import annotations

import lzma
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from prunus.runtime.card.artifact import atomic_path, sha256_of
from prunus.runtime.errors import ArtifactError, HostError, SourceError
from prunus.runtime.host import user_cache

PACKED = ".xz"
CACHE_VARIABLE = "PRUNUS_CACHE_DIR"


def unpacked(packed: Path, sha256: str) -> Path:
    """Return the plain file of a packed one.

    Args:
        packed: ``NAME.xz``, trusted: compared with its own hash before.
        sha256: Of the plain file.

    Raises:
        ArtifactError: what is inside has another hash.
        HostError: it can be written nowhere.
    """
    name = packed.name.removesuffix(PACKED)
    reasons: list[str] = []
    for folder in _folders():
        path = folder / name
        if path.is_file() and sha256_of(path) == sha256:
            return path
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary:
                temporary.write_bytes(_plain(packed))
                if sha256_of(temporary) != sha256:
                    raise ArtifactError(
                        f"{packed} does not hold what its entry says.", "Install prunus again."
                    )
        except (OSError, HostError, SourceError) as error:
            reasons.append(str(error).rstrip("."))
            continue
        return path
    raise HostError(
        f"Cannot unpack {packed.name} ({'; '.join(reasons)}).",
        f"Set {CACHE_VARIABLE} to a folder that can be written.",
    )


def _plain(packed: Path) -> bytes:
    try:
        return lzma.decompress(packed.read_bytes())
    except (lzma.LZMAError, EOFError) as error:
        raise ArtifactError(f"Cannot unpack {packed}: {error}.", "Install prunus again.") from None


def _folders() -> Iterator[Path]:
    """Yield the places to unpack to, best first: devices may have a read-only or no home."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        yield Path(chosen) / "models"
        return
    try:
        yield user_cache() / "models"
    except RuntimeError:  # no home
        pass
    user = os.getuid() if hasattr(os, "getuid") else "user"
    yield Path(tempfile.gettempdir()) / f"prunus-{user}" / "models"
