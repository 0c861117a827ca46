"""What calls of several threads on one task object must not share: buffers, clocks, streams."""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import UsageError

_P = ParamSpec("_P")
_R = TypeVar("_R")


class _Streamed(Protocol):
    _stream: AbstractContextManager[Any]


_Own = TypeVar("_Own", bound=_Streamed)


class Buffers:
    """Arrays of one shape that calls borrow: as many as calls ran side by side, never more.

    Args:
        shape: Shape of each.
        dtype: Type of each.
    """

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike = np.uint8) -> None:
        self._shape, self._dtype = shape, dtype
        self._idle: deque[npt.NDArray[Any]] = deque()

    @contextmanager
    def borrowed(self) -> Iterator[npt.NDArray[Any]]:
        """Yield an array that nobody else has; its content is whatever the last call left."""
        try:
            array = self._idle.pop()
        except IndexError:
            array = np.zeros(self._shape, self._dtype)
        try:
            yield array
        finally:
            self._idle.append(array)


class StageClock:
    """Milliseconds by stage; each thread reads those of its own last call."""

    def __init__(self, *stages: str) -> None:
        self._stages, self._own = stages, threading.local()

    def start(self) -> dict[str, float]:
        """Begin a call of this thread: all stages at zero; the call adds to what it gets."""
        times = dict.fromkeys(self._stages, 0.0)
        self._own.times = times
        return times

    @property
    def stage_ms(self) -> dict[str, float]:
        """Milliseconds by stage of this thread's last call, empty before one."""
        times: dict[str, float] = getattr(self._own, "times", {})
        return times


class OneStream:
    """Refuse a call into a stream while another thread is inside: their pieces would be mixed.

    Args:
        what: The object, for messages.
    """

    def __init__(self, what: str) -> None:
        self._what, self._busy = what, threading.RLock()

    def __enter__(self) -> None:
        """Enter, or refuse."""
        if not self._busy.acquire(blocking=False):
            raise UsageError(
                f"{self._what} serves one stream; a call came from a second thread meanwhile.",
                "Give each stream an object of its own; they may share the model.",
            )

    def __exit__(self, *_: object) -> None:
        """Leave."""
        self._busy.release()


def in_turn(method: Callable[Concatenate[_Own, _P], _R]) -> Callable[Concatenate[_Own, _P], _R]:
    """Run a method inside its object's `_stream`: a `OneStream`, or a lock to wait for."""

    @functools.wraps(method)
    def guarded(self: _Own, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        with self._stream:
            return method(self, *args, **kwargs)

    return guarded
