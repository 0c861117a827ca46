"""Identity scores on tables small enough to count by hand."""

import pytest

from prunus.runtime.tasks.pose.identities import score_identities, true_boxes


def at(x):
    return (x - 4.0, 0.0, x + 4.0, 20.0)


def test_perfect_tracks_score_one_whatever_their_numbers():
    truth = [{"a": at(10 + k), "b": at(90 - k)} for k in range(10)]
    scores = score_identities(truth, [{7: t["a"], 3: t["b"]} for t in truth])
    assert (scores.idf1, scores.switches, scores.recall, scores.precision) == (1, 0, 1, 1)
    assert (scores.people, scores.identities) == (2, 2)


def test_swapped_numbers_are_two_switches_and_cost_half():
    truth = [{"a": at(10), "b": at(90)}] * 10
    found = [{0: at(10), 1: at(90)}] * 5 + [{1: at(10), 0: at(90)}] * 5
    scores = score_identities(truth, found)
    assert (scores.switches, scores.idf1, scores.recall) == (2, 0.5, 1.0)


def test_a_new_number_after_a_gap_is_a_switch():
    truth = [{"a": at(10)}] * 9
    found = [{0: at(10)}] * 4 + [{}] * 2 + [{5: at(10)}] * 3
    scores = score_identities(truth, found)
    assert (scores.switches, scores.identities) == (1, 2)
    assert scores.recall == pytest.approx(7 / 9)
    assert scores.idf1 == pytest.approx(2 * 4 / (9 + 7))


def test_a_pair_stands_while_it_is_near_enough():
    """The other one is nearer for a frame, which alone is no switch."""
    truth = [{"a": at(10)}] * 3
    found = [{0: at(10)}, {0: at(14), 1: at(11)}, {0: at(10)}]
    assert score_identities(truth, found).switches == 0


def test_false_alarms_and_misses():
    scores = score_identities([{"a": at(10)}] * 2, [{0: at(200)}, {0: at(10), 1: at(200)}])
    assert (scores.recall, scores.precision) == (0.5, 1 / 3)
    nothing = score_identities([{"a": at(10)}], [{}])
    assert (nothing.idf1, nothing.recall, nothing.identities) == (0, 0, 0)
    with pytest.raises(ValueError, match="zip"):
        score_identities([{}], [])


def test_marks_become_boxes_on_straight_lines():
    boxes = true_boxes({"a": {"0": [10, 20, 30], "4": [18, 20, 50]}}, 9, shape=0.5)
    assert boxes[0]["a"] == (2.5, 5.0, 17.5, 35.0)
    assert boxes[2]["a"] == (14 - 10, 0.0, 14 + 10, 40.0)
    assert "a" in boxes[7] and boxes[8] == {}


@pytest.mark.parametrize(("apart", "hit"), [(0, 1), (5.9, 1), (6.1, 0), (8.9, 0)])
@pytest.mark.parametrize("way", [(1, 0), (0, 1), (-0.6, 0.8)])
def test_centres_may_be_three_tenths_of_the_height_apart(apart, hit, way):
    x, y = (apart * part for part in way)
    found = [{0: (6 + x, y, 14 + x, 20 + y)}]
    assert score_identities([{"a": at(10)}], found).recall == hit
    assert score_identities([{"a": at(10)}], found, reach=0.5).recall == 1


def test_the_nearer_of_two_is_the_pair():
    truth, found = [{"a": at(10), "b": at(14)}], [{0: at(13.5), 1: at(9.5)}]
    then = [{0: at(14), 1: at(10)}]
    assert score_identities(truth * 2, found + then).switches == 0
