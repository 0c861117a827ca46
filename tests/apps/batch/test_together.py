"""Runs are shared by whoever is there, in the members' order; nobody waits for one who left."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from prunus.apps.batch.together import Seat, Together
from prunus.runtime.errors import HostError


def _members(together, calls):
    """Have each member call so often, then leave; return its answers."""

    def one(member):
        answers = [together.call(member, (member, k)) for k in range(calls[member])]
        Seat(together, member).leave()
        return answers

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, range(len(calls))))


def test_who_shares_a_run_is_told_by_the_members_alone():
    runs = []

    def run(items):
        runs.append(list(items))
        return [f"{member}.{k}" for member, k in items]

    for _ in range(20):
        runs.clear()
        answers = _members(Together(run, 3), calls := [2, 4, 1])
        assert answers == [[f"{m}.{k}" for k in range(n)] for m, n in enumerate(calls)]
        assert runs == [[(0, 0), (1, 0), (2, 0)], [(0, 1), (1, 1)], [(1, 2)], [(1, 3)]]


def test_an_item_that_breaks_a_run_breaks_it_for_itself():
    def run(items):
        if any(item == "bad" for item in items):
            raise ValueError("bad")
        return [item.upper() for item in items]

    together = Together(run, 3)

    def call(member, item):
        try:
            return together.call(member, item)
        except ValueError as error:
            return error

    with ThreadPoolExecutor(3) as pool:
        first, second, third = pool.map(call, range(3), ("a", "bad", "c"))
    assert (first, str(second), third) == ("A", "bad", "C")


def test_the_end_wakes_those_who_wait():
    together = Together(list, 2)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(together.call, 0, "a")
        Seat(together, 1).end()
        with pytest.raises(HostError, match="ending"):
            waiting.result(timeout=10)
