"""Let a fixed number of calls into a session at a time, in the order in which they came."""

from __future__ import annotations

import threading
from collections import deque

from prunus.runtime.errors import UsageError


class Turns:
    """A fair gate that can be shut for good.

    A plain lock goes to whoever asks first after a release, which is nearly always the thread that
    released it: one busy thread then starves the others.

    Args:
        at_once: Calls inside at a time, at least 1.
        what: What is behind the gate, for messages.
    """

    def __init__(self, at_once: int, what: str) -> None:
        self.at_once, self._what = at_once, what
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._inside = 0
        self._shut = False

    def __enter__(self) -> None:
        ticket = object()
        with self._changed:
            if self._shut:
                raise UsageError(f"{self._what} has been closed.", "Open it again.")
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(
                    lambda: self._waiting[0] is ticket and self._inside < self.at_once
                )
                self._inside += 1
            finally:  # also after Ctrl-C: a ticket left behind would hold up everybody
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def shut(self) -> bool:
        """Refuse new calls and wait for those that came before; returns False when shut already."""
        with self._changed:
            if self._shut:
                return False
            self._shut = True
            self._changed.wait_for(lambda: not self._waiting and not self._inside)
            return True
