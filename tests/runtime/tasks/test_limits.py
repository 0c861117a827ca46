"""Lines of a budget: what holds, how it is told, and how a user replaces one."""

import math

import pytest

from prunus.runtime.errors import UsageError
from prunus.runtime.tasks.limits import Limit, override

MOST, LEAST = Limit("p99_px", 0.5), Limit("pixels_equal", 0.99, "at least")


@pytest.mark.parametrize(
    ("limit", "good", "bad"),
    [(MOST, (0.5, 0.4, -1, -math.inf), (0.51, math.inf)), (LEAST, (0.99, 1, math.inf), (0.98, 0))],
)
def test_a_value_on_the_bound_holds_and_nan_never_does(limit, good, bad) -> None:
    assert all(limit.holds(value) for value in good)
    assert not any(limit.holds(value) for value in (*bad, math.nan))


def test_how_a_limit_is_told() -> None:
    assert (MOST.describe(), LEAST.describe()) == ("<= 0.5", ">= 0.99")


def test_a_user_replaces_a_bound_and_keeps_its_direction() -> None:
    assert override((MOST, LEAST), None) == override((MOST, LEAST), {}) == (MOST, LEAST)
    found = override((MOST, LEAST), {"pixels_equal": 1})
    assert found == (MOST, Limit("pixels_equal", 1.0, "at least"))
    assert isinstance(found[1].value, float)


def test_an_unknown_quantity_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'p99_pix' applies here.*p99_px") as caught:
        override((MOST, LEAST), {"p99_pix": 1})
    assert caught.value.hint == "This budget has: p99_px, pixels_equal."
