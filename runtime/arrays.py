"""Arrays in files, ``.npy`` and ``.npz``: one reader that takes a file as hostile, and one writer.

numpy's own reader makes room for whatever a header declares, lets six kinds of errors out, and
unpacks what fits into no memory. Here sizes are compared first, nothing is ever unpickled, and a
file that was cut off gives one error that names it.
"""

from __future__ import annotations

import contextlib
import io
import math
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import PrunusError, SourceError
from prunus.runtime.limits import ARRAY_BYTES, short_number

Array = npt.NDArray[Any]
Admit = Callable[[str, int], None]
_NPY, _ZIP = b"\x93NUMPY", b"PK"
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_OBJECTS = "it holds pickled Python objects, which are never read"
_SAVE = "Save it with numpy.savez."


def read_arrays(
    source: str | Path | bytes, *needed: str, admit: Admit | None = None, hint: str = _SAVE
) -> dict[str, Array]:
    """Return the arrays of an ``.npz`` file by name, in the file's order.

    Args:
        source: The file, or the bytes of one that somebody sent.
        needed: Names that must be there.
        admit: Gets each name and the bytes that its array is said to have, header included,
            before it is unpacked; raises what it does not want.
        hint: How to make such a file, for the error.

    Returns:
        Arrays of any type but Python objects, rows first (C order).

    Raises:
        SourceError: no such file, no ``.npz``, cut off or damaged, a name twice, pickled objects,
            a header that does not fit its data, more than `runtime.limits.ARRAY_BYTES`, or an array
            that is needed is not there.
    """
    called = "The body" if isinstance(source, bytes) else str(source)
    with _told(called, ".npz", hint), _archive(source) as archive:
        entries = archive.infolist()
        ARRAY_BYTES.check(sum(entry.file_size for entry in entries), called, SourceError)
        found: dict[str, Array] = {}
        for entry in entries:
            name = _name(entry)
            if admit is not None:
                admit(name, entry.file_size)
            if name in found:
                raise ValueError(f"it holds '{name}' twice")
            found[name] = _member(archive, entry)
    if missing := [name for name in needed if name not in found]:
        raise _lacking(called, found, " and ".join(map(repr, missing)), hint)
    return found


def read_array(path: str | Path, *names: str, hint: str = _SAVE, mapped: bool = False) -> Array:
    """Return the array of an ``.npy`` file, or one of an ``.npz`` file.

    Args:
        path: The file; what it is, its first bytes say.
        names: Of the array in an ``.npz``: the first of these that is there; the others are not
            read. Without names the file must be an ``.npy``.
        hint: How to make such a file, for the error.
        mapped: Leave the numbers of an ``.npy`` on the disk and read them as they are used.

    Returns:
        See `read_arrays`; one that is mapped can only be read.

    Raises:
        SourceError: see `read_arrays`; or none of these names is there.
    """
    path = Path(path)
    kind = " or ".join([".npy", *[".npz"] * bool(names)])
    with _told(str(path), kind, hint):
        with path.open("rb") as file:
            begins = file.read(len(_NPY))
        if names and begins.startswith(_ZIP):
            return _named(path, names, hint)
        with path.open("rb") as file:
            size = path.stat().st_size
            if mapped:
                _check_header(file, size)
                array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
                return array
            ARRAY_BYTES.check(size, str(path), SourceError)
            return _array(file, size)


def write_arrays(target: Path | BinaryIO, arrays: Mapping[str, Array]) -> None:
    """Write an ``.npz``; unlike `numpy.savez`, with arrays of any name ("file" is its own).

    Args:
        target: Written in place: for a file that must be whole or absent, a path of
            `runtime.card.artifact.atomic_path`.
        arrays: Name -> array of any type but Python objects.

    Raises:
        OSError: it cannot be written.
    """
    with zipfile.ZipFile(target, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # of no time: the same arrays, the same bytes
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)


@contextlib.contextmanager
def _told(called: str, kind: str, hint: str) -> Iterator[None]:
    """Turn whatever a damaged file leads to into one error with the file's name."""
    try:
        yield
    except PrunusError:
        raise
    except FileNotFoundError:
        raise SourceError(f"Array file not found: {called}.", f"Give an {kind} file.") from None
    except OSError as error:
        raise SourceError(f"Cannot read {called}: {error.strerror or error}.", hint) from None
    except MemoryError:
        raise SourceError(f"{called} does not fit into memory.", "Save fewer rows.") from None
    except Exception as error:  # zipfile, zlib, struct, tokenize, numpy: a dozen kinds
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise SourceError(
            f"{called} is not a complete {kind} file: {reason.rstrip('.')}.", hint
        ) from None


def _archive(source: str | Path | bytes) -> zipfile.ZipFile:
    if isinstance(source, bytes):
        return zipfile.ZipFile(io.BytesIO(source))
    with Path(source).open("rb") as file:  # else a single array is no more than a bad zip file
        if file.read(len(_NPY)) == _NPY:
            raise ValueError("it is a single array (.npy) without a name")
    return zipfile.ZipFile(source)


def _named(path: Path, names: tuple[str, ...], hint: str) -> Array:
    with zipfile.ZipFile(path) as archive:
        entries = {_name(entry): entry for entry in archive.infolist()}
        for name in names:
            if name in entries:
                ARRAY_BYTES.check(entries[name].file_size, str(path), SourceError)
                return _member(archive, entries[name])
    raise _lacking(str(path), entries, " or ".join(map(repr, names)), hint)


def _lacking(called: str, there: Iterable[str], wanted: str, hint: str) -> SourceError:
    shown = [name[:80] for name in there][:20]
    return SourceError(f"{called} has the arrays {shown}; expected {wanted}.", hint)


def _name(entry: zipfile.ZipInfo) -> str:
    return entry.filename.removesuffix(".npy")


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Array:
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("only numpy's own compression is read")
    with archive.open(entry) as file:
        array = _array(file, entry.file_size)
        file.read(1)  # the end, where zipfile compares the checksum
    return array


def _array(file: Any, size: int) -> Array:
    """Read the array that fills a file of `size` bytes."""
    _check_header(file, size)
    file.seek(0)
    array: Array = np.lib.format.read_array(file, allow_pickle=False)
    return np.asarray(array, order="C")  # ascontiguousarray would give a scalar an axis


def _check_header(file: Any, size: int) -> None:
    """Compare what a header declares with what is there, before numpy makes room for it."""
    begins = file.read(len(_NPY))
    if begins[:1] == b"\x80":  # as every pickle since Python 2.3
        raise ValueError(_OBJECTS)
    if begins != _NPY:
        raise ValueError(f"it begins with {begins!r}, not as an array" if begins else "it is empty")
    file.seek(0)
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"its format has the version {version}; 1.0 and 2.0 are read")
    shape, _, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise ValueError(_OBJECTS)
    declared, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    odd = not dtype.itemsize or any(not 0 <= size < 1 << 60 for size in shape)
    if odd or declared != there:
        raise ValueError(
            f"its header declares {short_number(declared)} bytes of {dtype} {list(shape)}, "
            f"and {there} are there"
        )
