"""When the finder runs: by time and by need."""

import numpy as np
import pytest

from prunus.runtime.errors import UsageError
from prunus.runtime.tasks.pose.tracking.finding import Finding, Search

EMPTY = np.full((480, 640, 3), 90, np.uint8)
PERSON = (100.0, 100.0, 160.0, 280.0)


def scene(*boxes):
    frame = EMPTY.copy()
    for x0, y0, x1, y1 in boxes:
        frame[int(y0) : int(y1), int(x0) : int(x1)] = 200
    return frame


def times(search, seconds, frame_of, boxes, lost=0, rate=30):
    found = []
    for k in range(round(seconds * rate)):
        if search.due(frame_of(k / rate), k / rate, boxes, lost):
            found.append((round(k / rate, 2), search.reason))
    return found


def test_a_still_scene_is_searched_once_a_period():
    found = times(Search(Finding(period_s=1.0)), 3.5, lambda t: scene(PERSON), [PERSON])
    assert found == [(0.0, "first"), (1.0, "time"), (2.0, "time"), (3.0, "time")]


def test_someone_new_is_looked_for_at_once_and_the_motion_of_the_followed_is_theirs():
    def newcomer(t):
        return scene(PERSON, *([(400.0, 150.0, 460.0, 330.0)] if t >= 0.5 else []))

    found = times(Search(Finding(period_s=2.0)), 1.0, newcomer, [PERSON])
    assert found[:2] == [(0.0, "first"), (0.5, "new")]
    waving = lambda t: scene((100 + 20 * np.sin(9 * t), 100.0, 160 + 20 * np.sin(9 * t), 280.0))  # noqa: E731
    assert times(Search(Finding(period_s=2.0)), 1.9, waving, [PERSON]) == [(0.0, "first")]


def test_the_place_that_somebody_left_is_nobody_new():
    search, later = Search(Finding(period_s=5.0)), (360.0, 100.0, 420.0, 280.0)
    assert search.due(scene(PERSON), 0.0, [PERSON], 0)
    assert not search.due(scene(later), 1.0, [later], 0)


def test_a_need_that_stays_is_met_ever_more_rarely():
    found = times(Search(Finding(period_s=1.0, pause_s=0.1)), 4.0, lambda t: EMPTY, [PERSON], 1)
    gaps = np.diff([t for t, _ in found])
    assert found[1] == (0.1, "lost")
    np.testing.assert_allclose(gaps[:4], [0.1, 0.2, 0.4, 0.8], atol=0.05)  # to a frame
    assert max(gaps) <= 1.0 + 0.035


def test_never_twice_within_the_pause_and_rarer_where_time_is_short():
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, EMPTY.shape, np.uint8) for _ in range(3)]
    for stretch in (1.0, 3.0):
        search = Search(Finding(period_s=1.0, pause_s=0.2))
        search.stretch = stretch
        found = times(search, 2.0, lambda t: noise[round(t * 30) % 3], [])
        assert min(np.diff([t for t, _ in found])) >= 0.2 * stretch - 1e-9
        assert len(found) == pytest.approx(2.0 / (0.2 * stretch), abs=2)


def test_counted_frames_where_asked_for():
    found = times(Search(Finding(every=4)), 0.4, lambda t: EMPTY, [PERSON], rate=30)
    assert [round(t * 30) for t, _ in found] == [0, 4, 8]
    # Nobody is followed: each frame may bring somebody.
    assert len(times(Search(Finding(every=4)), 0.4, lambda t: EMPTY, [], rate=30)) == 12


@pytest.mark.parametrize("values", [{"every": 0}, {"pause_s": 2.0}, {"pause_s": -1.0}])
def test_periods_that_make_no_sense_are_refused(values):
    with pytest.raises(UsageError):
        Finding(**values)
