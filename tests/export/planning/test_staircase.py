"""Flat steps on given measurements."""

from prunus.export.planning.points import Candidate, Point
from prunus.export.planning.staircase import drop_flat


def cut(share, *keep, method="evit", blocks=(3,)):
    name = f"{method}:{keep}@{blocks}"
    candidate = Candidate(name, "pruned", 1, name, method, blocks[: len(keep)], keep)
    return Point(candidate, 10 * share, 11 * share, share)


DENSE = Point(Candidate("dense", "dense", 2, "dense"), 10.0, 11.0, 1.0)


def reasons(*points):
    return [p.dropped.partition(":")[0] for p in drop_flat([DENSE, *points])][1:]


def test_every_step_down_stays() -> None:
    assert reasons(cut(0.9, 128), cut(0.8, 96), cut(0.7, 64)) == ["", "", ""]


def test_a_larger_count_at_no_higher_latency_wins_whatever_the_order() -> None:
    assert reasons(cut(0.7, 96), cut(0.7, 128)) == ["flat step", ""]
    assert reasons(cut(0.7, 128), cut(0.75, 96)) == ["", "flat step"]


def test_a_flat_step_names_its_top() -> None:
    point = drop_flat([cut(0.7, 128), cut(0.695, 120)])[1]
    assert point.dropped == "flat step: 128 takes 0.700 of dense, this one 0.695"


def test_small_savings_in_a_row_add_up() -> None:
    """Each is within 2 % of its neighbour; the third saves 3 % against the top of the step."""
    assert reasons(cut(0.700, 130), cut(0.690, 120), cut(0.679, 110), cut(0.672, 100)) == [
        "", "flat step", "", "flat step",
    ]  # fmt: skip


def test_the_tolerance_is_a_share_and_its_edge_is_flat() -> None:
    assert [p.dropped != "" for p in drop_flat([cut(0.5, 9), cut(0.45, 8)], 0.1)] == [False, True]
    assert [p.dropped != "" for p in drop_flat([cut(0.5, 9), cut(0.449, 8)], 0.1)] == [False] * 2


def test_a_cut_that_is_as_slow_as_dense_saves_nothing_and_is_no_top() -> None:
    assert reasons(cut(1.05, 128), cut(0.99, 96), cut(0.97, 64)) == [
        "saves nothing", "saves nothing", "",
    ]  # fmt: skip


def test_methods_and_blocks_have_staircases_of_their_own() -> None:
    assert (
        reasons(cut(0.7, 128), cut(0.8, 64, method="tome"), cut(0.9, 64, blocks=(6,))) == [""] * 3
    )


def test_chains_of_cuts_are_larger_where_every_count_is() -> None:
    chains = [cut(0.6, 128, 64, blocks=(3, 6)), cut(0.6, 120, 80, blocks=(3, 6)),
              cut(0.6, 120, 60, blocks=(3, 6))]  # fmt: skip
    assert reasons(*chains) == ["", "", "flat step"]


def test_points_without_cuts_stay_as_they_are() -> None:
    blocks = Point(Candidate("first 6 blocks", "blocks", 1, depth=6), 10.0, 11.0, 1.2)
    assert drop_flat([DENSE, blocks]) == [DENSE, blocks]
