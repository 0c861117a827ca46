"""Where inputs lie and results go: a folder, or any address that pyarrow or fsspec opens."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from prunus.runtime.card.artifact import write_error
from prunus.runtime.errors import MissingDependencyError, SourceError

_T = TypeVar("_T")
_NATIVE = ("file", "s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss")
_OBJECTS = ("s3", "gcs")  # have no folders
_DRAFTS = "_drafts"  # readers of Parquet folders pass over names that begin so
_TRIES, _PAUSE = 3, 0.5  # seconds, doubled each time


class StorageError(SourceError):
    """The folder of the results, or where inputs lie, cannot be used: no input is to blame."""


@dataclass(frozen=True, slots=True)
class Stat:
    """What a file system tells of a file.

    Attributes:
        path: In the file system.
        size: Bytes.
        modified_ns: Time of the last change in nanoseconds, 0 where it does not say.
    """

    path: str
    size: int
    modified_ns: int


def shown(address: str) -> str:
    """Return an address without account and settings, fit for results and messages.

    >>> shown("s3://key:secret@bucket/a.jpg?region=x"), shown("/what?.jpg")
    ('s3://bucket/a.jpg', '/what?.jpg')
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    host, slash, path = rest.partition("?")[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def arrow(name: str) -> Any:
    """Import a module of pyarrow.

    Raises:
        MissingDependencyError: it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingDependencyError("pyarrow", "batch", "prunus batch") from None


def open_filesystem(address: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path in it.

    Args:
        address: Path on this machine, or ``scheme://...``: what pyarrow knows goes to it, all
            others to fsspec.

    Raises:
        StorageError: no such kind of storage, or it cannot be reached.
        MissingDependencyError: pyarrow or fsspec is not installed.
    """
    fs = arrow("pyarrow.fs")
    scheme, separator, _ = address.partition("://")
    if not separator:
        return fs.LocalFileSystem(), os.path.abspath(address)
    with _told("open", address):
        if scheme in _NATIVE:
            system, path = fs.FileSystem.from_uri(address)
            return system, str(path).rstrip("/")
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise MissingDependencyError("fsspec", "batch", f"The address {scheme}://") from None
        other, path = url_to_fs(address)
        return fs.PyFileSystem(fs.FSSpecHandler(other)), str(path).rstrip("/")


def listed(system: Any, folder: str, *, recursive: bool = False) -> Iterator[Stat]:
    """Yield the files of a folder; none where it is missing."""
    fs = arrow("pyarrow.fs")
    selector = fs.FileSelector(folder, allow_not_found=True, recursive=recursive)
    for info in system.get_file_info(selector):
        if info.type == fs.FileType.File:
            yield Stat(info.path, info.size or 0, info.mtime_ns or 0)


@contextlib.contextmanager
def on_this_machine(system: Any, path: str) -> Iterator[Path]:
    """Yield a file of this machine with the content of that one: itself, or a copy for a while.

    Raises:
        OSError: it cannot be read; from networks three times in a row.
    """
    if system.type_name == "local":
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="prunus-") as folder:
        copy = Path(folder) / Path(path).name

        def fetch() -> None:
            with system.open_input_stream(path) as source, copy.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)

        _tried(system, fetch)
        yield copy


def _tried(system: Any, call: Callable[[], _T]) -> _T:
    """Do something with a storage; networks get three tries, refusals and disks one."""
    for again in range(_TRIES - 1):
        try:
            return call()
        except (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError):
            raise
        except OSError:
            if system.type_name == "local":
                raise
            time.sleep(_PAUSE * 2**again)
    return call()


class Store:
    """The folder of a run.

    Args:
        address: Path or address.

    Attributes:
        address: Fit for messages.
        name: The same, absolute.

    Raises:
        StorageError: no such kind of storage, or it cannot be reached.
    """

    def __init__(self, address: str) -> None:
        self.address = shown(address)
        self._system, self.base = open_filesystem(address)
        self.name = self.address if "://" in address else self.base

    def files(self, folder: str) -> dict[str, Stat]:
        """Return the files of a folder by their names; raises StorageError."""
        where = f"{self.base}/{folder}"
        found = self._tried("list", folder, lambda: list(listed(self._system, where)))
        return {Path(stat.path).name: stat for stat in found}

    def there(self, name: str) -> bool:
        """Tell whether there is a file of that name; raises StorageError."""
        fs, path = arrow("pyarrow.fs"), f"{self.base}/{name}"
        kind = self._tried("look for", name, lambda: self._system.get_file_info(path).type)
        return bool(kind == fs.FileType.File)

    @contextlib.contextmanager
    def read(self, name: str) -> Iterator[Path]:
        """Yield a file of this machine with that content; raises StorageError."""
        with contextlib.ExitStack() as stack:
            yield self._tried("read", name, lambda: stack.enter_context(
                on_this_machine(self._system, f"{self.base}/{name}")))  # fmt: skip

    def put(self, source: Path, name: str) -> None:
        """Write a file under a name that it takes only when it is whole.

        Raises:
            StorageError: the storage refuses it, three times in a row.
        """

        def write() -> None:
            draft = f"{self.base}/{_DRAFTS}/{uuid.uuid4().hex}"
            target = f"{self.base}/{name}"
            for path in (draft, target):
                if self._system.type_name not in _OBJECTS:
                    self._system.create_dir(path.rpartition("/")[0], recursive=True)
            try:
                with source.open("rb") as file, self._system.open_output_stream(draft) as stream:
                    shutil.copyfileobj(file, stream, 1 << 20)
                self._system.move(draft, target)
            except BaseException:
                with contextlib.suppress(Exception):
                    self._system.delete_file(draft)
                raise

        self._tried("write", name, write)

    def put_text(self, text: str, name: str) -> None:
        """Write a text as `put` does."""
        with tempfile.TemporaryDirectory(prefix="prunus-") as folder:
            (path := Path(folder) / "text").write_text(text, encoding="utf-8")
            self.put(path, name)

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is as good."""
        with contextlib.suppress(OSError):
            self._system.delete_file(f"{self.base}/{name}")

    def sweep(self) -> None:
        """Remove what a run that was killed had begun to write."""
        with contextlib.suppress(OSError):
            self._system.delete_dir(f"{self.base}/{_DRAFTS}")

    def _tried(self, verb: str, name: str, call: Callable[[], _T]) -> _T:
        with _told(verb, f"{self.address}/{name}"):
            return _tried(self._system, call)


@contextlib.contextmanager
def _told(verb: str, address: str) -> Iterator[None]:
    """Turn what a storage raises into one clear error."""
    try:
        yield
    except (OSError, ValueError, ImportError) as error:  # Arrow's own are of these
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise write_error(OSError(errno.ENOSPC, ""), shown(address)) from None
        raise StorageError(
            f"Cannot {verb} {shown(address)}: {reason_of(error)}.",
            "Check the address, its rights and the credentials of this machine.",
        ) from None


def reason_of(error: BaseException) -> str:
    """Return why something failed, in one short line."""
    text = getattr(error, "strerror", None) or " ".join(str(error).split())
    return (str(text) or type(error).__name__)[:300].rstrip(".")
