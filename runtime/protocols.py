"""What objects of the runtime promise: to be closed, or to take and give something in pieces."""

from __future__ import annotations

import abc
from typing import Generic, TypeVar

_Own = TypeVar("_Own", bound="Closable")
In = TypeVar("In")
Out = TypeVar("Out")


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


class Stream(abc.ABC, Generic[In, Out]):
    """Something in pieces in, something in pieces out, and what waits in between.

    Wherever the input is cut, the pieces that come out are the same when they are joined. `push`
    gives what is complete by now, `flush` the rest; then `reset` begins anew. Models stay open and
    may be shared, the stream itself belongs to one sound.

    Attributes:
        sample_rate_hz: Of what `latency` counts: samples, or pictures.
    """

    __slots__ = ()
    sample_rate_hz: int

    @property
    @abc.abstractmethod
    def latency(self) -> int:
        """Samples that may have to follow one before it comes out, besides the piece itself."""

    @property
    def latency_s(self) -> float:
        """The same in seconds."""
        return self.latency / self.sample_rate_hz

    @abc.abstractmethod
    def push(self, piece: In, /) -> Out:
        """Take a piece, empty ones too; return what is complete by now."""

    @abc.abstractmethod
    def flush(self) -> Out:
        """End the input; return what was not complete."""

    @abc.abstractmethod
    def reset(self) -> None:
        """Forget all that came: what follows is a new stream, with the settings of this one."""
