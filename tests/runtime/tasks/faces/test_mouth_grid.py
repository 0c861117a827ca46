"""Crops at any times on a steady grid: a frame shows the newest one by its middle."""

import numpy as np
import pytest

from prunus.runtime.errors import TensorError
from prunus.runtime.tasks.faces.mouth_grid import MouthGrid

RATE, GREY = 25, 107


def _crop(value):
    return np.full((2, 2), value, np.uint8)


def _values(grid, begin, end):
    return grid.take(begin, end)[:, 0, 0].tolist()


@pytest.mark.parametrize("seed", range(8))
def test_a_frame_shows_the_newest_crop_by_its_middle(seed):
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(0.005, 0.13, 40)).round(4)
    grid = MouthGrid(2, RATE, GREY)
    for k, time_s in enumerate(times):
        grid.push(_crop(k), time_s)
        # What no later crop can change: frames whose middle lies before the newest one.
        assert grid.decided == sum((n + 0.5) / RATE < time_s for n in range(400))
    expected = []
    for n in range(grid.decided):
        seen = [k for k, time_s in enumerate(times) if time_s <= (n + 0.5) / RATE]
        expected.append(seen[-1] if seen else GREY)
    assert _values(grid, 0, grid.decided) == expected
    assert (grid.held, grid.late) == (0, 0)


def test_a_crop_at_the_very_middle_counts():
    grid = MouthGrid(2, RATE, GREY)
    for k in range(3):
        grid.push(_crop(k), (k + 0.5) / RATE)
    assert _values(grid, 0, 2) == [0, 1] and grid.decided == 2


def test_a_face_that_leaves_keeps_its_last_mouth():
    grid = MouthGrid(2, RATE, GREY)
    grid.push(None, 0.0)
    grid.push(_crop(5), 0.04)
    grid.push(None, 0.08)
    grid.push(_crop(9), 0.12)
    assert _values(grid, 0, 3) == [GREY, 5, 5]


def test_frames_that_are_held_are_counted_and_final():
    grid = MouthGrid(2, RATE, GREY)
    grid.push(_crop(3), 0.0)
    grid.hold(0)
    assert (grid.decided, grid.held) == (0, 0)
    grid.hold(4)
    grid.hold(2)
    assert (grid.decided, grid.held) == (4, 4)
    grid.push(_crop(7), 0.10)  # too late for the frames that were held
    grid.push(_crop(8), 0.30)
    assert _values(grid, 0, 7) == [3, 3, 3, 3, 7, 7, 7] and grid.held == 4


def test_a_crop_before_the_one_before_it_is_counted_and_takes_its_time():
    grid = MouthGrid(2, RATE, GREY)
    for value, time_s in ((1, 0.0), (2, 0.1), (3, 0.02), (4, 0.1), (5, 0.2)):
        grid.push(_crop(value), time_s)
    assert grid.late == 1
    assert _values(grid, 0, 5) == [1, 1, 4, 4, 4]


def test_earlier_frames_are_forgotten_and_the_first_kept_one_stands_for_them():
    grid = MouthGrid(2, RATE, GREY)
    for k in range(10):
        grid.push(_crop(k), k / RATE)
    assert _values(grid, -2, 2) == [0, 0, 0, 1]
    grid.drop_before(4)
    assert _values(grid, 2, 6) == [4, 4, 4, 5] and grid.decided == 9
    grid.drop_before(3)
    assert _values(grid, 4, 5) == [4]
    grid.drop_before(100)  # the last decided one stays
    assert (grid.decided, _values(grid, 0, 9)) == (9, [8] * 9)
    with pytest.raises(IndexError):
        grid.take(9, 10)


def test_buffers_of_cameras_may_be_used_again():
    grid, buffer = MouthGrid(2, RATE, GREY), _crop(1)
    grid.push(buffer, 0.0)
    buffer[:] = 9
    grid.hold(1)
    assert _values(grid, 0, 1) == [1]


@pytest.mark.parametrize(
    ("crop", "time_s"),
    [(_crop(1), float("nan")), (_crop(1), float("inf")), (_crop(1)[:1], 0.0),
     (np.zeros((2, 2, 1), np.uint8), 0.0), (np.zeros((2, 2), np.float32), 0.0)],
)  # fmt: skip
def test_what_is_no_mouth_is_refused_and_changes_nothing(crop, time_s):
    grid = MouthGrid(2, RATE, GREY)
    with pytest.raises(TensorError):
        grid.push(crop, time_s)
    grid.push(_crop(2), 0.05)
    assert _values(grid, 0, 1) == [GREY] and grid.late == 0
