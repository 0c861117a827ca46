"""What lies between two stages: a bounded queue that loses nothing, or a slot for the newest."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

END: Final = object()


class Channel:
    """Hand items from one thread to another, in order.

    Args:
        capacity: Items that may wait.
        newest: True: a full channel drops its oldest item and counts it (live sources).
            False: a full channel makes the producer wait (files).
        replace: Told of the item that is dropped and the one that comes instead, which may take
            over a part; returns how many were lost.
    """

    def __init__(
        self,
        capacity: int,
        newest: bool,
        replace: Callable[[Any, Any], int] = lambda old, new: 1,
    ) -> None:
        self.capacity, self.newest, self.dropped = capacity, newest, 0
        self._replace = replace
        self._items: deque[Any] = deque()
        self._closed = False
        # Reentrant, because a signal handler may close the channel whose lock its thread holds.
        self._changed = threading.Condition(threading.RLock())

    def put(self, item: Any) -> bool:
        """Hand over an item; returns False once the channel is closed and the item was refused."""
        with self._changed:
            while not self.newest and not self._closed and len(self._items) >= self.capacity:
                self._changed.wait()
            if self._closed:
                return False
            if len(self._items) >= self.capacity:
                self.dropped += self._replace(self._items.popleft(), item)
            self._items.append(item)
            self._changed.notify_all()
            return True

    def get(self) -> Any:
        """Wait for the next item; returns `END` when the channel is closed and empty."""
        with self._changed:
            while not self._items and not self._closed:
                self._changed.wait()
            if not self._items:
                return END
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Refuse further items; those that wait are still handed out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abort(self) -> None:
        """Close and throw away what waits."""
        with self._changed:
            self._items.clear()
            self.close()
