"""What a registry of sources or sinks is made of: one row per kind of name that users give."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from prunus.runtime.errors import SourceError, nearest
from prunus.runtime.references import load

Item = Literal["frames", "av", "sound", "codes"]


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of source or sink.

    Attributes:
        help: How users write it, as shown by ``--help``.
        factory: ``module:attribute`` of what opens it, imported then and not before.
        items: What it gives or takes.
        scheme: What stands before the colon of a name, ``http://`` with its slashes; empty for
            files and devices.
        suffixes: Endings of file names, in lower case.
        pattern: Regular expression that the whole name matches instead.
        folder: Whether it is a folder.
        other: Whether it takes existing files of any other ending.
    """

    help: str
    factory: str
    items: Item = "frames"
    scheme: str = ""
    suffixes: tuple[str, ...] = ()
    pattern: str = ""
    folder: bool = False
    other: bool = False

    @property
    def address(self) -> bool:
        """Whether it is somewhere on a network."""
        return self.scheme.endswith("://")

    def load(self) -> Any:
        """Import and return what opens it."""
        return load(self.factory)


def of(rows: Sequence[Row], *items: Item) -> list[Row]:
    """Return the rows of these items, those of the first ones first."""
    return [row for kind in items for row in rows if row.items == kind]


def named(rows: Sequence[Row], uri: str, *items: Item) -> Row | None:
    """Return the row of a name that is told by its form, without looking at the disk."""
    scheme, separator, _ = uri.partition(":")
    for row in of(rows, *items):
        if row.address and uri.startswith(row.scheme):
            return row
        if scheme and separator and row.scheme == scheme:
            return row
        if row.pattern and re.fullmatch(row.pattern, uri, re.ASCII):
            return row
    return None


def by_suffix(rows: Sequence[Row], suffix: str, *items: Item) -> Row | None:
    """Return the row of files with that ending, in any case."""
    return next((r for r in of(rows, *items) if suffix.lower() in r.suffixes), None)


def otherwise(rows: Sequence[Row], folder: bool, *items: Item) -> Row | None:
    """Return the row of folders, or the one that takes files of any other ending."""
    return next((r for r in of(rows, *items) if (r.folder if folder else r.other)), None)


def unknown_scheme(rows: Sequence[Row], uri: str, what: str, *items: Item) -> SourceError | None:
    """Return what is wrong with a name that has a scheme and no row; None for plain names."""
    scheme, separator, rest = uri.partition(":")
    if not separator or len(scheme) < 2 or "/" in scheme:  # one letter is a drive on Windows
        return None
    shown = f"{scheme}://" if rest.startswith("//") else f"{scheme}:"
    known = [row.scheme.removesuffix("://") for row in of(rows, *items) if row.scheme]
    return SourceError(
        f"Unknown kind of {what} '{shown}'{nearest(scheme, known)}.",
        f"Give {listed(rows, *items)}",
    )


def listed(rows: Sequence[Row], *items: Item) -> str:
    """Return the kinds as one phrase, e.g. ``0, /dev/video0, picture, folder or rtsp://``."""
    kinds = list(dict.fromkeys(row.help for row in of(rows, *items) if row.help))
    return f"{', '.join(kinds[:-1])} or {kinds[-1]}" if len(kinds) > 1 else "".join(kinds)


def without_password(uri: str) -> str:
    """Return a URI without its password, fit for messages and logs.

    >>> without_password("rtsp://me:secret@camera/1")
    'rtsp://me:***@camera/1'
    """
    scheme, separator, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    user, at, machine = host.rpartition("@")
    if not at:
        return uri
    name, colon, _ = user.partition(":")
    return f"{scheme}{separator}{name}{colon}{'***' if colon else ''}@{machine}{slash}{path}"
