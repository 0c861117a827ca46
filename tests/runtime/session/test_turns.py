"""A fair gate: so many at once, in the order in which they came, and shut for good."""

import threading
import time

import pytest

from prunus.runtime.errors import UsageError
from prunus.runtime.session.turns import Turns


class _Crowd:
    """Threads that enter one gate one after the other, and stay until they are let go."""

    def __init__(self, turns):
        self.turns, self.inside, self.order = turns, [], []
        self._go, self._threads = {}, []
        self._changed = threading.Condition()

    def come(self, name):
        self._go[name] = threading.Event()
        waiting = len(self.turns._waiting) + self.turns._inside
        thread = threading.Thread(target=self._visit, args=(name,), daemon=True)
        thread.start()
        self._threads.append(thread)
        self.until(lambda: len(self.turns._waiting) + self.turns._inside == waiting + 1)

    def _visit(self, name):
        with self.turns:
            with self._changed:
                self.inside.append(name)
                self.order.append(name)
            self._go[name].wait(20)
            with self._changed:
                self.inside.remove(name)

    def leave(self, name):
        self._go[name].set()

    @staticmethod
    def until(holds):
        end = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < end
            time.sleep(0.001)

    def end(self):
        for name in self._go:
            self.leave(name)
        for thread in self._threads:
            thread.join(20)


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_so_many_are_inside_and_they_take_turns(at_once):
    crowd = _Crowd(Turns(at_once, "The session"))
    for name in range(6):
        crowd.come(name)
    for first in range(6):
        expected = list(range(first, min(first + at_once, 6)))
        crowd.until(lambda expected=expected: crowd.inside == expected)
        assert crowd.turns._inside == len(expected)
        crowd.leave(first)
    crowd.end()
    assert crowd.order == list(range(6)) and crowd.turns._inside == 0


def test_shutting_waits_for_those_that_came_before_and_refuses_others():
    turns = Turns(1, "The session")
    crowd = _Crowd(turns)
    crowd.come("in")
    crowd.come("waits")
    shut = []
    closing = threading.Thread(target=lambda: shut.append(turns.shut()), daemon=True)
    closing.start()
    crowd.until(lambda: turns._shut)
    with pytest.raises(UsageError, match="The session has been closed") as caught, turns:
        raise AssertionError
    assert caught.value.hint == "Open it again."
    assert shut == []  # two calls still have to end
    crowd.leave("in")
    crowd.until(lambda: crowd.inside == ["waits"])
    assert shut == []
    crowd.end()
    closing.join(20)
    assert shut == [True] and turns.shut() is False


def test_a_call_that_fails_leaves_the_gate_open():
    turns = Turns(1, "The session")
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), turns:
            raise ZeroDivisionError
    assert turns.shut() is True


def test_a_wait_that_is_broken_off_holds_nobody_up(monkeypatch):
    turns = Turns(1, "The session")

    def interrupted(holds):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(turns._changed, "wait_for", interrupted)
        with pytest.raises(KeyboardInterrupt), turns:
            raise AssertionError
    assert turns._inside == 0
    with turns:
        assert turns._inside == 1
