"""Time stamps of every odd kind: in order, without leaps, from zero on."""

import numpy as np
import pytest

from prunus.apps.io.frames import AudioBlock
from prunus.apps.io.timeline import LONGEST_GAP, CaptureClock, Leaps, TimeLine, joined

WALL = 1.75e9


def _placed(stamps, start=0.0, length=0.04):
    line = TimeLine(start)
    return [line.place(stamp, length) for stamp in stamps], line


def test_stamps_in_order_stay_as_they_are_behind_the_start() -> None:
    times, line = _placed([10.0, 10.1, 10.5, 10.54], start=10.0)
    np.testing.assert_allclose(times, [0, 0.1, 0.5, 0.54])
    assert line.restarts == 0


def test_missing_stamps_follow_the_one_before() -> None:
    times, _ = _placed([None, None, 0.5, None])
    np.testing.assert_allclose(times, [0, 0.04, 0.5, 0.54])


@pytest.mark.parametrize("leap", [-4.0, 3600.0, WALL, -1e9])
def test_leaps_and_restarts_continue_right_behind(leap: float) -> None:
    times, line = _placed([4.0, 4.04, 4.08 + leap, 4.12 + leap], start=4.0)
    np.testing.assert_allclose(times, [0, 0.04, 0.08, 0.12], atol=2e-6)
    assert line.restarts == 1


def test_a_stream_stamped_by_the_wall_clock_begins_with_the_file() -> None:
    times, line = _placed([WALL, WALL + 0.04])
    np.testing.assert_allclose(times, [0, 0.04], atol=2e-6)
    assert line.restarts == 1


def test_a_long_pause_is_believed() -> None:
    times, line = _placed([0.0, LONGEST_GAP - 1])
    assert times == [0.0, LONGEST_GAP - 1] and line.restarts == 0


def test_disorder_is_put_in_order() -> None:
    times, line = _placed([0.0, 0.12, 0.08, 0.08, 0.16])
    assert (np.diff(times) > 0).all() and times[-1] == 0.16 and line.restarts == 0


def test_picture_and_sound_leap_by_the_same() -> None:
    leaps = Leaps()
    picture, sound = TimeLine(0.0, leaps), TimeLine(0.0, leaps, ordered=False)
    for stamp in (0.0, 3.96, 0.0):
        picture.place(stamp, 0.04)
    for stamp in (0.0, 3.97):  # the sound of the first part is 17 ms longer
        sound.place(stamp, 0.047)
    assert sound.place(0.0, 0.047) == pytest.approx(4.0)  # where the picture is, not 4.017


def _ramp(*blocks):
    return [AudioBlock(at, np.arange(first, last, dtype=np.float32)) for at, first, last in blocks]


def test_holes_become_silence_and_overlaps_are_cut() -> None:
    sound = np.concatenate(
        list(joined(_ramp((0.0, 0, 100), (0.3, 300, 400), (0.35, 350, 450)), 1000))
    )
    assert not sound[100:300].any()
    np.testing.assert_array_equal(sound[300:], np.arange(300, 450))


def test_sound_before_the_start_is_left_out_and_jitter_passes() -> None:
    sound = np.concatenate(
        list(joined(_ramp((-0.05, -50, 50), (0.06, 50, 150), (0.12, 150, 200)), 1000))
    )
    np.testing.assert_array_equal(sound, np.arange(0, 200))


def test_silence_comes_in_small_pieces() -> None:
    pieces = [len(block) for block in joined(_ramp((250.0, 0, 10)), 1000)]
    assert max(pieces) <= 1000 and sum(pieces) == 250_010


def test_the_delay_of_the_network_does_not_move_pictures() -> None:
    rng = np.random.default_rng(0)
    stamps = np.arange(500) / 25
    arrived = 1000 + stamps + 0.05 + rng.exponential(0.05, 500)
    clock = CaptureClock()
    times = np.array([clock.captured(s, a) for s, a in zip(stamps, arrived, strict=True)])
    assert (times <= arrived + 1e-9).all()
    behind = times - (1000 + stamps)
    assert np.ptp(behind[100:]) < 0.01  # the arrivals alone: 0.3 s
    assert 0.05 <= behind[-1] < 0.06


def test_clocks_that_drift_apart_stay_together() -> None:
    stamps = np.arange(0, 3600, 0.5)
    arrived = stamps * (1 + 5e-5)
    clock = CaptureClock()
    times = np.array([clock.captured(s, a) for s, a in zip(stamps, arrived, strict=True)])
    assert np.abs(times - arrived).max() < 1e-6


def test_stamps_that_fall_behind_for_good_begin_anew() -> None:
    clock = CaptureClock()
    assert clock.captured(0.0, 10.0) == 10.0
    assert clock.captured(0.1, 100.0) == 100.0
