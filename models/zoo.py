"""The files that ship with prunus, as a typed and checked table (`zoo.toml`).

Reading the table needs neither PyTorch nor ONNX; a file is compared with its hash before its path
or its numbers are handed out. In a checkout the files lie beside the code. A wheel holds the table
alone: its files come as a distribution of their own, prunus-models.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import re
import sys
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prunus.models.unpack import PACKED, unpacked
from prunus.runtime.card.artifact import sha256_of
from prunus.runtime.errors import ArtifactError, MissingDependencyError, UsageError, nearest

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["checkpoint", "artifact"]
TABLE = Path(__file__).with_name("zoo.toml")
WEIGHTS = Path(__file__).with_name("weights")
_SUFFIXES = {"checkpoint": (".safetensors", ".safetensors.xz"), "artifact": (".onnx", ".onnx.xz")}
PACKAGE = "prunus_models"  # has the folders `weights` and `media`, see models/prunus_models
_REINSTALL = "Install prunus and prunus-models again, or copy the file from a good installation."


@dataclass(frozen=True, slots=True)
class Entry:
    """One shipped file.

    Attributes:
        name: What users and programs call it.
        file: File name inside `weights/`, beside the code or in prunus-models.
        kind: ``checkpoint`` (safetensors) or ``artifact`` (ONNX).
        task: e.g. ``pose`` or ``detection``.
        sha256: Lower-case hexadecimal hash of the file.
        size: Bytes.
        licence: SPDX identifier of the numbers, not of the code.
        origin: Who made them, from what.
        config: What rebuilds the network or describes the graph, e.g. ``{"variant": "tiny"}``.
        plain_sha256: Hash of the graph inside an artifact that is stored as ``.xz``.
    """

    name: str
    file: str
    kind: Kind
    task: str
    sha256: str
    size: int
    licence: str
    origin: str
    config: dict[str, str | int] = dataclasses.field(default_factory=dict, hash=False)
    plain_sha256: str = ""

    @property
    def path(self) -> Path:
        """Where the file lies; it may be missing or damaged, see `model_path`.

        Raises:
            MissingDependencyError: see `shipped_file`.
        """
        return shipped_file(WEIGHTS / self.file, f"The shipped model '{self.name}'")


def shipped_file(own: Path, purpose: str) -> Path:
    """Return where a file lies that ships with prunus; it may be missing, or damaged.

    Args:
        own: Its place in a checkout, which comes first; the package's folder is called alike.
        purpose: What needs it, in a few words, for the error.

    Raises:
        MissingDependencyError: neither beside the code, nor is prunus-models installed.
    """
    if own.is_file():
        return own
    spec = importlib.util.find_spec(PACKAGE)
    folders = [Path(f) / own.parent.name for f in (spec and spec.submodule_search_locations) or ()]
    places = [folder / own.name for folder in folders if folder.is_dir()]
    if not places and not WEIGHTS.is_dir():  # no checkout either, which would have lost the file
        error = MissingDependencyError(PACKAGE, "weights", purpose)
        error.hint += "; from a checkout: pip install ./models/prunus_models"
        raise error
    return next((place for place in places if place.is_file()), [*places, own][0])


def entries() -> tuple[Entry, ...]:
    """Return the shipped files in the table's order.

    Raises:
        ArtifactError: the table is missing or wrong.
    """
    return _cached_table(TABLE)


def graphs_for(task: str) -> tuple[Entry, ...]:
    """Return the shipped graphs of a task, in the table's order."""
    return tuple(e for e in entries() if e.kind == "artifact" and e.task == task)


@functools.lru_cache(maxsize=1)
def _cached_table(path: Path) -> tuple[Entry, ...]:
    return read_table(path)


def read_table(path: Path) -> tuple[Entry, ...]:
    """Read and check a table of files.

    Raises:
        ArtifactError: not readable, an unknown or missing key, a wrong value, a repeated name.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:  # pragma: no cover - the newest supported interpreters carry it
        import tomli as tomllib
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"Cannot read the table {path}: {error}.", _REINSTALL) from None
    unknown = [key for key in table if key != "entry"]
    if unknown:
        raise ArtifactError(f"{path.name} has the unknown key '{unknown[0]}'; expected 'entry'.")
    found = tuple(_entry(row, number) for number, row in enumerate(table.get("entry", [])))
    names = [entry.name for entry in found]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ArtifactError(f"{path.name} lists '{repeated[0]}' twice.", "Names must differ.")
    return found


def _entry(row: dict[str, Any], number: int) -> Entry:
    title = f"Entry '{row.get('name', number)}' of the table of files"
    fields = {field.name: field for field in dataclasses.fields(Entry)}
    for key in row:
        if key not in fields:
            raise ArtifactError(f"{title} has the unknown key '{key}'{nearest(key, list(fields))}.")
    missing = [n for n in fields if n not in row and n not in ("config", "plain_sha256")]
    if missing:
        raise ArtifactError(f"{title} lacks {', '.join(missing)}.")
    for key, value in row.items():
        wanted = {"size": int, "config": dict}.get(key, str)
        if type(value) is not wanted:
            got = type(value).__name__
            raise ArtifactError(f"{title} has {key} of type {got}; expected {wanted.__name__}.")
    entry = Entry(**row)
    _check_values(entry, title)
    return entry


def _check_values(entry: Entry, title: str) -> None:
    if entry.kind not in typing.get_args(Kind):
        known = ", ".join(typing.get_args(Kind))
        raise ArtifactError(f"{title} is of kind '{entry.kind}'; expected one of {known}.")
    packed = entry.kind == "artifact" and entry.file.endswith(PACKED)
    for key in ("sha256", "plain_sha256") if packed else ("sha256",):
        if not re.fullmatch(r"[0-9a-f]{64}", getattr(entry, key)):
            raise ArtifactError(
                f"{title} has a {key} that is not 64 lower-case hexadecimal digits."
            )
    endings = _SUFFIXES[entry.kind]
    if not re.fullmatch(r"[\w.-]+", entry.file) or not entry.file.endswith(endings):
        raise ArtifactError(
            f"{title} has the file '{entry.file}'; expected a plain name that ends in "
            f"{' or '.join(endings)}."
        )
    if entry.size < 1:
        raise ArtifactError(f"{title} has a size of {entry.size} bytes; expected at least 1.")


def find(name: str) -> Entry:
    """Return the entry of that name.

    Raises:
        UsageError: nothing of that name ships.
    """
    known = {entry.name: entry for entry in entries()}
    if name not in known:
        choices = ", ".join(known) or "nothing"
        raise UsageError(
            f"No model named '{name}' ships with prunus{nearest(name, list(known))}.",
            f"What ships: {choices}.",
        )
    return known[name]


def find_checkpoint(**wanted: object) -> Entry | None:
    """Return the first shipped checkpoint whose config has these values, None without one.

    >>> find_checkpoint(model="nothing") is None
    True
    """
    for entry in entries():
        fits = all(entry.config.get(key) == value for key, value in wanted.items())
        if entry.kind == "checkpoint" and fits:
            return entry
    return None


def model_path(name: str) -> Path:
    """Return the path of a shipped file, after comparing it with its hash.

    A graph that is stored compressed is unpacked into the user's cache first.

    Raises:
        UsageError: nothing of that name ships.
        ArtifactError: the file is missing or damaged.
        MissingDependencyError: prunus-models is not installed.
        HostError: there is no place to unpack it to.
    """
    entry = find(name)
    verify(entry)
    if entry.kind == "artifact" and entry.file.endswith(PACKED):
        return unpacked(entry.path, entry.plain_sha256)
    return entry.path


def verify(entry: Entry) -> None:
    """Compare a file with its entry.

    Raises:
        ArtifactError: the file is missing, or has another size or hash.
        MissingDependencyError: prunus-models is not installed.
    """
    path = entry.path
    if not path.is_file():
        raise ArtifactError(f"The file of '{entry.name}' is missing: {path}.", _REINSTALL)
    size = path.stat().st_size
    if size != entry.size:
        raise ArtifactError(f"{path} has {size} bytes; expected {entry.size}.", _REINSTALL)
    got = sha256_of(path)
    if got != entry.sha256:
        raise ArtifactError(
            f"{path} has sha256 {got[:12]}...; expected {entry.sha256[:12]}...", _REINSTALL
        )


def load_checkpoint(name: str) -> dict[str, Tensor]:
    """Return the state dict of a shipped checkpoint; compact storage comes back as float32.

    Raises:
        UsageError: nothing of that name ships, or it is no checkpoint.
        ArtifactError: the file is missing or damaged.
        MissingDependencyError: prunus-models is not installed.
    """
    entry = find(name)
    if entry.kind != "checkpoint":
        raise UsageError(
            f"'{name}' is an {entry.kind} ({entry.file}); expected a checkpoint.",
            "Open it with prunus.runtime.open.",
        )
    verify(entry)
    from prunus.models.checkpoints.read import read_checkpoint

    return read_checkpoint(entry.path)
