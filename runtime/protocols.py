"""The context-manager half of everything that holds a model and must be closed."""

from __future__ import annotations

import abc
from typing import TypeVar

_Own = TypeVar("_Own", bound="Closable")


class Closable(abc.ABC):
    """Close at the end of a `with` block."""

    __slots__ = ()

    @abc.abstractmethod
    def close(self) -> None:
        """Free what is held; safe to call twice."""

    def __enter__(self: _Own) -> _Own:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
