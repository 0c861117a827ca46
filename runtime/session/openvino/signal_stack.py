"""Keep the stack that signal handlers of a thread run on, around libraries that exchange it.

OpenVINO 2026.4 gives the thread that loads a model a signal stack, and puts back the one from
before when the model is freed. Two models that are freed in the order in which they came
leave the thread with a stack that is gone: the next Ctrl-C would kill the process, because
Python's handler asks for that stack.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class SignalStack(ctypes.Structure):
    """`stack_t` of Linux: address, flags (2: none is set) and bytes."""

    _fields_ = (("base", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def signal_stack() -> SignalStack | None:
    """Return what this thread has; None on systems other than Linux."""
    if not sys.platform.startswith("linux"):
        return None
    stack = SignalStack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
    return stack


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Put this thread's signal stack back at the end, whatever happened to it."""
    before = signal_stack()
    try:
        yield
    finally:
        if before is not None:
            ctypes.CDLL(None).sigaltstack(ctypes.byref(before), None)
