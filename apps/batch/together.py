"""Calls of several inputs that go through a model side by side, joined in one run of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from prunus.runtime.errors import HostError

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Together(Generic[Item, Answer]):
    """Run a model when each of its members has called it or has left.

    Who shares a run is so told by the members alone, never by who was quicker.

    Args:
        run: Gets the items in the order of the members; returns as many answers.
        members: How many there are, numbered from 0; each calls from one thread at a time.
    """

    def __init__(self, run: Callable[[Sequence[Item]], Sequence[Answer]], members: int) -> None:
        self._run, self._members = run, set(range(members))
        self._items: dict[int, Item] = {}
        self._answers: dict[int, Answer | Exception] = {}
        self._changed = threading.Condition()
        self._closed = False

    def call(self, member: int, item: Item) -> Answer:
        """Return the answer to an item once the others have called as well.

        Raises:
            Exception: what the run raised for this item.
            HostError: the work is ending.
        """
        with self._changed:
            self._items[member] = item
            self._go_when_all_are_here()
            self._changed.wait_for(lambda: self._closed or member in self._answers)
            if member not in self._answers:
                raise HostError("The work is ending.", "Start it again: it goes on.")
            answer = self._answers.pop(member)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def leave(self, member: int) -> None:
        """Wait no more for a member; safe to call twice."""
        with self._changed:
            self._members.discard(member)
            self._go_when_all_are_here()

    def close(self) -> None:
        """End all calls."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _go_when_all_are_here(self) -> None:
        if not self._items or len(self._items) < len(self._members):
            return
        members = sorted(self._items)
        items = [self._items.pop(member) for member in members]
        self._answers.update(zip(members, self._answered(items), strict=True))
        self._changed.notify_all()

    def _answered(self, items: Sequence[Item]) -> list[Answer | Exception]:
        """Return an answer or an error for each; one that makes the run fail, fails alone."""
        try:
            return list(self._run(items))
        except Exception as error:  # it belongs to whoever called, in another thread
            if len(items) == 1:
                return [error]
            return [self._answered([item])[0] for item in items]


class Seat:
    """The place of one input beside others in the runs of a model.

    Args:
        shared: Where it sits.
        member: Its number there.
    """

    def __init__(self, shared: Together[Any, Any], member: int) -> None:
        self._shared, self._member = shared, member

    def leave(self) -> None:
        """Have the others not wait any more; safe to call twice."""
        self._shared.leave(self._member)

    def end(self) -> None:
        """End the calls of all."""
        self._shared.close()
