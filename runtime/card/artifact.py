"""Files of a model: the ONNX artifact, the engine with its sidecar, and safe writing.

An ONNX file is read straight from its bytes (`runtime.card.graph`): the runtime must be able to say
what a file is without onnx, onnxruntime or any other package being installed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prunus.runtime.card.card import CARD_KEY, ModelCard
from prunus.runtime.card.foreign import foreign_card
from prunus.runtime.card.graph import read_metadata
from prunus.runtime.card.reading import Share, build, parse_json
from prunus.runtime.errors import (
    ArtifactError,
    HostError,
    PrunusError,
    SourceError,
    UsageError,
)
from prunus.runtime.limits import SIDECAR_BYTES

_BLOCK = 1 << 20
_REBUILD = "Build the engine again: prunus build MODEL.onnx"


def sha256_of(path: str | Path) -> str:
    """Return the hex SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def plain_name(text: str) -> str:
    """Return a text as part of a file's name: letters, digits, ``_``, ``.`` and ``-`` alone."""
    return re.sub(r"[^\w.-]", "_", text, flags=re.ASCII)


@contextlib.contextmanager
def file_holding(data: bytes, suffix: str, shown: str) -> Iterator[str]:
    """Yield the path of a temporary file, for readers that want one; errors call it `shown`."""
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=suffix) as file:
        file.write(data)
        file.flush()
        try:
            yield file.name
        except PrunusError as error:
            error.message = error.message.replace(file.name, shown)
            error.hint = error.hint.replace(file.name, shown)
            raise


@contextlib.contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `target` that takes its name only if the block succeeds.

    Raises:
        HostError: the disk is full.
        SourceError: the folder does not exist or cannot be written.
    """
    import tempfile  # only writers need it, and it is slow to load

    target = Path(target)
    try:
        handle, name = tempfile.mkstemp(
            prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent
        )
        os.close(handle)
    except OSError as error:
        raise write_error(error, target) from None
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~umask())
        temporary.replace(target)
    except OSError as error:
        # A file of the caller's own that failed inside the block is not about the target.
        if error.filename not in (None, str(temporary), str(target)):
            raise
        raise write_error(error, target) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(target: str | Path, text: str) -> None:
    """Write a text as UTF-8, whole or not at all; see `atomic_path`."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def atomic_folder(target: Path, draft: Path | None = None) -> Iterator[Path]:
    """Yield a folder beside `target` that takes its name only if the block succeeds.

    Args:
        target: Must not exist.
        draft: Folder to fill, which stays where the block fails; None: one that does not.

    Raises:
        UsageError: there is something of that name.
        SourceError, HostError: it cannot be written, or the disk is full.
    """
    import tempfile

    if target.exists():
        raise UsageError(f"{target} exists.", "Remove it, or choose another folder with -o.")
    try:
        around = target.absolute().parent
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=around) as own:
            filled = draft or Path(own, target.name)
            filled.mkdir(exist_ok=True)
            try:
                yield filled
                filled.rename(target)
            finally:
                with contextlib.suppress(OSError):
                    filled.rmdir()  # only where nothing was put into it
    except OSError as error:
        raise write_error(error, target) from None


def write_error(error: OSError, target: str | Path) -> UsageError | HostError:
    """Turn an OSError met while writing `target` into one clear error."""
    parent = Path(target).absolute().parent
    if error.errno == errno.ENOSPC:
        return HostError(
            f"No space left while writing {target}.",
            "Free some disk space, or choose another folder with -o.",
        )
    if error.errno == errno.ENOENT and not parent.is_dir():
        return SourceError(
            f"The folder {parent} does not exist.", "Create it, or choose another path with -o."
        )
    if error.errno == errno.ENAMETOOLONG:  # met by whoever looks whether it is there, too
        name = Path(target).name
        return SourceError(
            f"'{name[:40]}...' has {len(name)} characters, too many for a file's name.",
            "Give a shorter path.",
        )
    reason = error.strerror or type(error).__name__
    return SourceError(f"Cannot write {target}: {reason}.", "Choose a writable path with -o.")


def umask() -> int:
    """Return which rights new files of this process do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_card(path: str | Path) -> ModelCard:
    """Return the card of an ``.onnx`` file or of an ``.engine`` with its sidecar.

    A file that prunus did not write has no card; it gets one that says what its tensors tell
    (`runtime.card.foreign`), with the task ``generic``.

    Raises:
        ArtifactError: no such file, not a model, a card that this version cannot read, or none and
            tensors that no static session takes.
    """
    path = Path(path)
    if path.suffix in (".engine", ".plan"):
        return EngineSidecar.read(path).card
    metadata = read_metadata(path)
    if CARD_KEY not in metadata:
        return foreign_card(path)
    try:
        return ModelCard.from_json(metadata[CARD_KEY])
    except ArtifactError as error:  # with several files, which one?
        raise ArtifactError(f"{path}: {error.message}", error.hint) from None


@dataclass(frozen=True, slots=True)
class EngineSidecar:
    """What a plan file cannot say about itself; stored as ``<engine>.json`` beside it.

    Attributes:
        card: Card of the ONNX file that was built.
        onnx_sha256: Hash of that file.
        engine_sha256: Hash of the plan file.
        flavour: ``tensorrt`` or ``tensorrt_rtx``.
        version: Version of the builder.
        compute_capability: ``major.minor`` of the GPU, or ``portable`` (RTX: Ampere and later).
        plugin: Name, version and sha256 of the plugin library, empty when the graph needs none.
        flags: Builder flags by name.
        build_seconds: Wall time of the build.
        half_layer_share: Share of the compute layers whose output is half or int8, 0..1.
    """

    card: ModelCard
    onnx_sha256: str
    engine_sha256: str
    flavour: str
    version: str
    compute_capability: str
    plugin: str
    flags: tuple[str, ...]
    build_seconds: float
    half_layer_share: Share

    @staticmethod
    def path_for(engine: str | Path) -> Path:
        """Return the sidecar's path: ``model.engine`` -> ``model.engine.json``."""
        return Path(f"{engine}.json")

    @staticmethod
    def read(engine: str | Path) -> EngineSidecar:
        """Read the sidecar of an engine; raises ArtifactError when it is missing or damaged."""
        if not Path(engine).is_file():
            raise ArtifactError(
                f"Engine file not found: {engine}.", "Build it with: prunus build MODEL.onnx"
            )
        path = EngineSidecar.path_for(engine)
        if not path.is_file():
            raise ArtifactError(
                f"{engine} has no sidecar {path.name}, so nothing is known about it.",
                "Keep both files together, or build again with: prunus build MODEL.onnx",
            )
        try:
            SIDECAR_BYTES.check(path.stat().st_size, "its file", ArtifactError)
            raw = parse_json(path.read_bytes(), "its text")
            card = raw.get("card") if isinstance(raw, dict) else None
        except OSError as error:
            raise ArtifactError(f"Cannot read {path}: {error.strerror}.", _REBUILD) from None
        except ArtifactError as error:
            raise _damaged_sidecar(path, error) from None
        try:
            ModelCard.from_parsed(card)
        except ArtifactError as error:
            raise ArtifactError(f"{path}: {error.message}", error.hint) from None
        try:
            return build(EngineSidecar, raw, "sidecar")
        except ArtifactError as error:
            raise _damaged_sidecar(path, error) from None

    def describes(self, engine: str | Path) -> bool:
        """Tell whether the plan file is the very one that this sidecar was written for."""
        return sha256_of(engine) == self.engine_sha256

    def write(self, engine: str | Path) -> None:
        """Write the sidecar of `engine` atomically."""
        with atomic_path(EngineSidecar.path_for(engine)) as path:
            path.write_text(json.dumps(dataclasses.asdict(self), sort_keys=True, indent=1) + "\n")


def _damaged_sidecar(path: Path, error: ArtifactError) -> ArtifactError:
    return ArtifactError(f"The sidecar {path} is damaged: {error.message}", _REBUILD)
