"""Both ends of a live run inside this process: the app between them finds them by a name alone."""

from __future__ import annotations

import itertools
from typing import ClassVar, TypeVar

from prunus.runtime.errors import SourceError

_Own = TypeVar("_Own", bound="Ends")


class Ends:
    """A source and a sink of one name, ``SCHEME:NUMBER``.

    Attributes:
        scheme: Of the rows that open them.
        what: A run of that kind, for messages.
        made_by: The command that makes one.
        uri: The name.
    """

    scheme: ClassVar[str]
    what: ClassVar[str] = "measurement"
    made_by: ClassVar[str] = "prunus bench MODEL --boundary ..."
    _numbers: ClassVar[itertools.count[int]] = itertools.count(1)
    _open: ClassVar[dict[str, Ends]] = {}

    def __init__(self) -> None:
        self.uri = f"{self.scheme}:{next(self._numbers)}"
        self._open[self.uri] = self

    @classmethod
    def of(cls: type[_Own], uri: str) -> _Own:
        """Return those of a name; raises SourceError where no run has it."""
        found = cls._open.get(uri)
        if not isinstance(found, cls):
            raise SourceError(
                f"There is no {cls.what} named {uri}.",
                f"Names of {cls.scheme}: are made by: {cls.made_by}",
            )
        return found

    def close(self) -> None:
        """Forget the name."""
        self._open.pop(self.uri, None)
