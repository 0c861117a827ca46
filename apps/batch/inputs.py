"""Which files a batch is about: what files, folders, patterns, lists and addresses stand for."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from prunus.apps.batch.storage import Stat, arrow, listed, open_filesystem, reason_of, shown
from prunus.runtime.errors import SourceError, UsageError

_WILD = re.compile(r"[*?\[]")
_HINT = "Give files, folders, patterns in quotes, @LIST or addresses such as s3://bucket/folder."


@dataclass(frozen=True, slots=True)
class Input:
    """One file that gets one result.

    Attributes:
        address: What opens it: an absolute path, or an address.
        size: Bytes, -1 where it could not be found.
        modified_ns: Time of its last change, 0 where the storage does not say.
    """

    address: str
    size: int = -1
    modified_ns: int = 0

    @property
    def name(self) -> str:
        """The address without account and settings, as results and messages name it."""
        return shown(self.address)

    @property
    def key(self) -> str:
        """Name of its results without an ending: part of the file's name, and a hash of all."""
        stem = re.sub(r"[^\w.-]+", "-", PurePosixPath(self.name).name, flags=re.ASCII)[:48]
        digest = hashlib.sha256(self.name.encode()).hexdigest()[:16]
        return f"{stem.strip('.-') or 'input'}-{digest}"


def expand(sources: Sequence[str], suffixes: Sequence[str], outside: str) -> list[Input]:
    """Return the inputs that words stand for, each once, in the order of their addresses.

    Args:
        sources: Words of the command line.
        suffixes: Endings, in lower case, that folders are searched for.
        outside: Folder of the results, whose files are no inputs.

    Raises:
        UsageError: no words.
        SourceError: a word that stands for nothing, or a storage that cannot be read.
    """
    if not sources:
        raise UsageError("There is no input.", _HINT)
    found: dict[str, Input] = {}
    for source in sources:
        for one in _listed_in(source[1:]) if source.startswith("@") else _named(source, suffixes):
            if not f"{one.name}/".startswith(f"{outside.rstrip('/')}/"):
                found.setdefault(one.name, one)
    if not found:
        raise SourceError(f"No input: {' '.join(sources)} names no file of this task.", _HINT)
    return [found[name] for name in sorted(found)]


def _listed_in(path: str) -> Iterator[Input]:
    """Yield the inputs of a list; one that is missing is told with the results, not here."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise SourceError(
            f"Cannot read the list {path}: {reason_of(error)}.", "Give a text file, one a line."
        ) from None
    for line in lines:
        if not (word := line.strip()) or word.startswith("#"):
            continue
        system, place = open_filesystem(word)
        try:
            yield _input(word, place, _stat_of(system, place))
        except OSError:
            yield Input(word if "://" in word else place)


def _named(source: str, suffixes: Sequence[str]) -> Iterator[Input]:
    system, path = open_filesystem(source)
    fs = arrow("pyarrow.fs")
    try:
        kind = system.get_file_info(path).type
        if kind == fs.FileType.Directory:
            inside = list(listed(system, path, recursive=True))
            stats = [s for s in inside if _shown(s.path[len(path) :], suffixes)]
        elif kind == fs.FileType.File:
            stats = [_stat_of(system, path)]
        else:
            stats = list(_matching(system, path)) if _WILD.search(path) else []
    except OSError as error:
        raise SourceError(f"Cannot read {shown(source)}: {reason_of(error)}.", _HINT) from None
    if not stats:
        kinds = ", ".join(suffixes)
        raise SourceError(
            f"No input: {shown(source)} names no file"
            + (f"; the folder was searched for {kinds}." if kind == fs.FileType.Directory else "."),
            _HINT,
        )
    for stat in stats:
        yield _input(source, path, stat)


def _shown(inside: str, suffixes: Sequence[str]) -> bool:
    """Tell whether a file of a folder is an input: of the task, and nowhere hidden."""
    parts = PurePosixPath(inside.lstrip("/")).parts
    return PurePosixPath(inside).suffix.lower() in suffixes and not any(
        part.startswith((".", "_")) for part in parts
    )


def _matching(system: object, path: str) -> Iterator[Stat]:
    """Yield the files that a pattern matches: ``*`` and ``?`` inside names, ``**`` across."""
    fixed = path[: _WILD.search(path).start()].rpartition("/")[0]  # type: ignore[union-attr]
    rest = path[len(fixed) + 1 :]
    wanted = re.compile(_regular(path))
    for stat in listed(system, fixed or "/", recursive="/" in rest):
        if wanted.fullmatch(stat.path):
            yield stat


def _regular(pattern: str) -> str:
    """Return the regular expression of a pattern.

    >>> bool(re.fullmatch(_regular("a/**/[bc]?.mp4"), "a/x/y/b1.mp4"))
    True
    >>> bool(re.fullmatch(_regular("a/*.mp4"), "a/x/b.mp4"))
    False
    """
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    words = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]/]+\])", pattern)
    kept = (w if w[:1] == "[" and w[-1:] == "]" else re.escape(w) for w in words)
    return "".join(parts.get(w, k) for w, k in zip(words, kept, strict=True))


def _stat_of(system: object, path: str) -> Stat:
    info = system.get_file_info(path)  # type: ignore[attr-defined]
    if info.size is None:
        raise FileNotFoundError(2, "No such file", path)
    return Stat(path, info.size, info.mtime_ns or 0)


def _input(source: str, path: str, stat: Stat) -> Input:
    """Return the input of a file that was found where `source` leads: to `path` of its storage."""
    bare, mark, settings = source.partition("?")
    if "://" not in source:
        return Input(stat.path, stat.size, stat.modified_ns)
    root = bare.rstrip("/").removesuffix(path.lstrip("/"))  # what stands before paths
    address = f"{root}{stat.path.lstrip('/')}{mark}{settings}"
    return Input(address, stat.size, stat.modified_ns)
