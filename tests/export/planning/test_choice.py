"""What is recommended on given measurements."""

import math

import pytest

from prunus.export.planning.choice import (
    Budget,
    difference,
    front,
    read_budget,
    recommend,
)
from prunus.export.planning.points import Candidate, Point
from prunus.runtime.errors import UsageError


def point(name, share, accuracy, kind="pruned", **more):
    return Point(Candidate(name, kind, 1), 20 * share, 22 * share, share, accuracy=accuracy, **more)


DENSE = point("dense", 1.0, 0.80, "dense")
HALF = point("evit:128@3", 0.7, 0.78)
QUARTER = point("evit:64@3", 0.5, 0.70)
SHORT = point("first 8 blocks", 0.68, 0.75, "blocks")


def named(found):
    return None if found is None else found.candidate.name


def test_the_most_accurate_within_the_budget() -> None:
    points = [DENSE, HALF, QUARTER, SHORT]
    assert recommend(points, Budget(0.75, "x")) is HALF
    assert recommend(points, Budget(0.69, "x")) is SHORT
    assert recommend(points, Budget(13.7, "ms")) is SHORT
    assert recommend(points, Budget(10.0, "ms")) is QUARTER


def test_dense_where_it_is_within_the_budget_and_best() -> None:
    assert recommend([QUARTER, HALF, DENSE], Budget(1.0, "x")) is DENSE


def test_a_rival_where_it_is_best() -> None:
    smaller = point("nets.py:small", 0.6, 0.79, "rival")
    assert recommend([DENSE, HALF, QUARTER, SHORT, smaller], Budget(0.7, "x")) is smaller


def test_nothing_where_nothing_meets_the_budget() -> None:
    assert recommend([DENSE, HALF, QUARTER], Budget(0.4, "x")) is None
    assert recommend([DENSE, HALF, QUARTER], Budget(0.75, "x"), lose=0.01) is None


def test_both_limits_hold() -> None:
    assert recommend([DENSE, HALF, QUARTER], Budget(0.75, "x"), lose=0.02 + 1e-9) is HALF


def test_without_a_budget_the_fastest_that_loses_no_more() -> None:
    points = [DENSE, HALF, QUARTER, SHORT]
    assert recommend(points) is DENSE
    assert recommend(points, lose=0.03) is HALF
    assert recommend(points, lose=0.06) is SHORT
    assert recommend(points, lose=0.2) is QUARTER
    better = point("tome:128@3", 0.8, 0.81)
    assert recommend([*points, better]) is better


def test_ties_go_to_the_faster_then_to_the_plainer() -> None:
    slow, fast = point("a", 0.7, 0.7), point("b", 0.6, 0.7)
    assert recommend([DENSE, slow, fast], Budget(0.9, "x")) is fast
    constant = point("random:64@3", 0.6, 0.7, "constant")
    short = point("first 6 blocks", 0.6, 0.7, "blocks")
    assert recommend([DENSE, fast, constant, short], Budget(0.9, "x")) is short
    assert recommend([DENSE, fast, constant], Budget(0.9, "x")) is constant
    as_dense = point("evit:250@3", 1.0, 0.8)
    assert recommend([as_dense, DENSE]) is DENSE


def test_what_was_dropped_or_not_judged_is_never_chosen() -> None:
    flat = point("evit:120@3", 0.6, 0.9, dropped="flat step")
    unseen = point("nets.py:other", 0.2, None, "rival")
    assert recommend([DENSE, flat, unseen, QUARTER], Budget(0.9, "x")) is QUARTER
    assert front([DENSE, flat, unseen, QUARTER]) == [QUARTER, DENSE]


def test_the_front_leaves_out_what_is_slower_and_no_better() -> None:
    worse = point("tome:128@3", 0.72, 0.78)
    twin = point("random:64@3", 0.5, 0.70, "constant")
    assert [named(p) for p in front([DENSE, HALF, worse, QUARTER, twin, SHORT])] == [
        "random:64@3", "first 8 blocks", "evit:128@3", "dense",
    ]  # fmt: skip


def test_a_lead_is_paired_over_the_same_samples() -> None:
    one = point("a", 0.5, 0.5, draws=tuple(0.1 * k for k in range(101)))
    other = point("b", 0.5, 0.5, draws=tuple(0.1 * k - 0.2 for k in range(101)))
    low, high = difference(one, other)
    assert math.isclose(low, 0.2, abs_tol=1e-9) and math.isclose(high, 0.2, abs_tol=1e-9)
    assert difference(one, DENSE) is None


@pytest.mark.parametrize(
    ("text", "value", "unit"), [("0.6x", 0.6, "x"), ("12ms", 12, "ms"), (".5 x", 0.5, "x")]
)
def test_budgets_in_words(text, value, unit) -> None:
    assert read_budget(text) == Budget(value, unit)


@pytest.mark.parametrize("text", ["", "0.6", "x", "0x", "0ms", "-1x", "12s", "1e3ms", "nanx"])
def test_other_words_are_no_budget(text) -> None:
    with pytest.raises(UsageError, match="expected a share of the dense latency, or milliseconds"):
        read_budget(text)


def test_a_budget_holds_at_its_edge_and_says_when_it_is_not_sure() -> None:
    near = point("a", 0.6, 0.7, share_range=(0.55, 0.65))
    assert Budget(0.6, "x").holds(near) and not Budget(0.6, "x").holds_always(near)
    assert Budget(0.65, "x").holds_always(near)
    assert Budget(12.0, "ms").holds(near) and not Budget(12.0, "ms").holds_always(near)
    assert Budget(13.2, "ms").holds_always(near)
