"""Shipped files that are stored compressed: unpacked once, into the user's cache.

``movenet.onnx.xz`` becomes ``<cache>/models/movenet.onnx``. The unpacked file is compared with its
hash before every use, so a damaged or outdated one is replaced, and a shared folder is safe.
"""

from __future__ import annotations

import lzma
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from prunus.runtime.card.artifact import atomic_path, sha256_of
from prunus.runtime.errors import ArtifactError, HostError, SourceError
from prunus.runtime.host import CACHE_VARIABLE, user_cache
from prunus.runtime.limits import UNPACKED_BYTES

PACKED = ".xz"
_BLOCK = 1 << 20


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
    for folder, shared in _folders():
        path = folder / name
        if shared and (reason := _not_ours(folder.parent)):
            reasons.append(reason)
            continue
        if path.is_file() and sha256_of(path) == sha256:
            return path
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary:
                with temporary.open("wb") as file:
                    file.writelines(xz_blocks(packed))
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


def xz_blocks(packed: Path) -> Iterator[bytes]:
    """Yield what a ``.xz`` file holds, block by block.

    Raises:
        ArtifactError: it is damaged, or holds or needs more memory than the limit.
    """
    reader = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=UNPACKED_BYTES.most)
    done = 0
    try:
        with packed.open("rb") as file:
            while not reader.eof:
                data = file.read(_BLOCK) if reader.needs_input else b""
                if reader.needs_input and not data:
                    raise EOFError("it ends early")
                block = reader.decompress(data, _BLOCK)
                done += len(block)
                UNPACKED_BYTES.check(done, str(packed), ArtifactError)
                yield block
            if reader.unused_data or file.read(1):
                raise EOFError("something stands behind its end")
    except (lzma.LZMAError, EOFError) as error:
        raise ArtifactError(f"Cannot unpack {packed}: {error}.", "Install prunus again.") from None


def _folders() -> Iterator[tuple[Path, bool]]:
    """Yield the places to unpack to, best first, and whether strangers may write beside them.

    Devices may have a read-only home, or none.
    """
    try:
        yield user_cache() / "models", False
    except HostError:  # no home
        pass
    if os.environ.get(CACHE_VARIABLE):
        return
    user = os.getuid() if hasattr(os, "getuid") else "user"
    yield Path(tempfile.gettempdir()) / f"prunus-{user}" / "models", True


def _not_ours(folder: Path) -> str:
    """Make a folder that only its owner can enter; returns why it is none, empty when it is.

    In the temporary folder anybody may have made it before, to put other files under our names.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        return f"{folder}: {error.strerror}"
    if not stat.S_ISDIR(found.st_mode):
        return f"{folder} is not a folder"
    if hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o022):
        return f"{folder} can be written by other users"
    return ""
