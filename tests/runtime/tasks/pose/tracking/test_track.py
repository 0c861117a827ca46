"""One person over time, in numbers: where, how fast, how a hidden one slows down."""

import math

import numpy as np
import pytest

from prunus.runtime.tasks.pose.estimator import Pose
from prunus.runtime.tasks.pose.tracking.track import Track, centre_of, moved

BOX = (10.0, 20.0, 50.0, 120.0)


def _pose(x=0.0, y=0.0, box=BOX, joints=2) -> Pose:
    """Two joints only: the box of the pose counts, not that of the joints."""
    keypoints = np.tile(np.array([20.0 + x, 30.0 + y, 0.9], np.float32), (joints, 1))
    return Pose(keypoints, (box[0] + x, box[1] + y, box[2] + x, box[3] + y), 0.8)


def _seen(speed=100.0, steps=30, every=0.1) -> Track:
    """A person who walks to the right, seen often enough to be known."""
    track = Track(_pose(), 0.0)
    for k in range(steps):
        track.see(_pose(x=speed * every * k), every * k)
    return track


def test_a_moved_pose_is_moved_in_both_directions() -> None:
    before = _pose()
    after = moved(before, np.array([3.0, -4.0]))
    assert after.box == (13, 16, 53, 116)
    np.testing.assert_allclose(after.keypoints, [[23, 26, 0.9]] * 2, rtol=1e-6)
    assert before.keypoints[0, 0] == 20 and after.score == before.score


def test_the_middle_of_a_box() -> None:
    assert centre_of(BOX).tolist() == [30, 70]


def test_the_first_view_gives_place_and_height() -> None:
    track = Track(_pose(), 0.0, track_id=4)
    assert not track.seen
    track.see(_pose(x=5), 2.0)
    assert track.seen and track.sights == 1
    assert (track.seconds, track.seen_s, track.read_s) == (2.0, 2.0, 2.0)
    assert track.centre.tolist() == [35, 70] and track.height == 100
    assert track.pose.track_id == 4 and track.pose.box == (15, 20, 55, 120)
    assert not track.velocity.any() and list(track.trail) == [(2.0, (15, 20, 55, 120))]


def test_the_second_view_gives_the_whole_speed_and_part_of_the_place() -> None:
    track = Track(_pose(), 0.0)
    track.see(_pose(), 0.0)
    track.see(_pose(x=10, y=-5), 0.1)
    share = 1 - math.exp(-0.1 / 0.05)
    np.testing.assert_allclose(track.centre, [30 + share * 10, 70 - share * 5])
    np.testing.assert_allclose(track.velocity, [100, -50])
    assert track.pose.box == (20, 15, 60, 115)  # what was read, not what is steadied


@pytest.mark.parametrize(
    ("crowding", "place_s", "speed_s"), [(0.0, 0.05, 0.3), (0.15, 0.1, 0.65), (0.3, 0.15, 1.0),
                                         (0.9, 0.15, 1.0)]
)  # fmt: skip
def test_one_odd_view_is_believed_in_part_and_less_beside_others(
    crowding, place_s, speed_s
) -> None:
    track = _seen()
    centre, velocity = track.centre.copy(), track.velocity.copy()
    expected = centre + velocity * 0.1
    track.see(_pose(x=expected[0] - 30 + 8, y=6), 3.0, crowding)
    off = np.array([8, 6])
    np.testing.assert_allclose(track.centre, expected + (1 - math.exp(-0.1 / place_s)) * off)
    share = max(1 - math.exp(-0.1 / speed_s), 0 if crowding else 1 / 30)
    np.testing.assert_allclose(track.velocity, velocity + share * off / 0.1)


def test_the_steady_height_takes_a_tenth_of_each_view() -> None:
    track = _seen(steps=1)
    track.see(_pose(box=(10.0, 20.0, 50.0, 220.0)), 0.1)
    assert track.height == pytest.approx(0.9 * 100 + 0.1 * 200)


def test_steady_motion_is_foreseen() -> None:
    track = _seen(speed=100)
    np.testing.assert_allclose(track.velocity, [100, 0], rtol=1e-5)
    box = track.predicted(3.4).box  # half a second on
    np.testing.assert_allclose(box, (350, 20, 390, 120), atol=1e-3)
    assert track.predicted(2.0).box == pytest.approx(track.predicted(2.9).box)  # never back


def test_a_person_who_was_never_seen_stays() -> None:
    assert Track(_pose(), 0.0).predicted(5.0).box == BOX


def test_a_hidden_person_slows_down_within_about_a_second() -> None:
    track = _seen(speed=100)
    track.coast(3.0, seen=False)  # still at full speed: seen until now
    assert not track.seen
    np.testing.assert_allclose(track.pose.box[0], 310, atol=1e-6)
    assert track.velocity[0] == pytest.approx(100)
    track.coast(3.5, seen=True)
    assert not track.seen  # who was hidden is not in view because of that
    gone = 100 * (1 - math.exp(-0.5))
    np.testing.assert_allclose(track.pose.box[0], 310 + gone, atol=1e-5)
    assert track.velocity[0] == pytest.approx(100 * math.exp(-0.5))
    assert track.seconds == 3.5 and track.trail[-1] == (3.5, track.pose.box)
    # All in all it goes on for as far as one second at full speed.
    assert track.predicted(1e6).box[0] == pytest.approx(410)
    np.testing.assert_allclose(track.centre, centre_of(track.pose.box))


def test_a_person_who_is_merely_not_read_keeps_its_speed() -> None:
    track = _seen(speed=100)
    for k in range(1, 6):
        track.coast(2.9 + k / 10, seen=True)
    assert track.seen and track.read_s == pytest.approx(2.9)
    assert track.velocity[0] == pytest.approx(100)
    assert track.pose.box[0] == pytest.approx(350)


def test_after_a_gap_the_place_is_where_it_is_seen() -> None:
    track = _seen(speed=100)
    track.coast(3.0, seen=False)
    track.see(_pose(x=700), 3.2)
    assert track.centre.tolist() == [730, 70] and track.velocity[0] == pytest.approx(100)


def test_boxes_of_the_recent_past() -> None:
    track = _seen(speed=100, steps=40)
    assert track.box_at(2.95)[0] == pytest.approx(10 + 290)
    assert track.box_at(3.0)[0] == pytest.approx(10 + 300)
    assert track.box_at(99.0)[0] == pytest.approx(10 + 390)
    assert len(track.trail) == 32
    assert track.box_at(0.0) == track.pose.box  # forgotten: the newest


def test_a_finder_that_answers_late_is_moved_along() -> None:
    track = _seen(speed=100)
    track.missed_finds = 3
    track.found((300.0, 15.0, 345.0, 125.0), 2.45, 2.9)
    np.testing.assert_allclose(track.found_box, [350, 15, 395, 125], atol=1e-3)
    assert track.crop(2.9) == track.found_box
    assert (track.found_s, track.missed_finds) == (2.9, 0)
    assert track.velocity[0] == pytest.approx(100) and track.pose.box[0] == pytest.approx(300)
    track.see(_pose(x=300), 3.0)
    assert track.found_box is None
    assert track.crop(3.1) == pytest.approx(track.predicted(3.1).box)


def test_a_finder_that_answers_at_once_is_taken_at_its_word() -> None:
    track = _seen(speed=100)
    track.found((1.0, 2.0, 3.0, 4.0), 2.9, 2.9)
    assert track.found_box == (1, 2, 3, 4)


def test_a_hidden_person_is_where_the_finder_says() -> None:
    track = _seen(speed=100)
    track.coast(3.0, seen=False)
    track.found((500.0, 100.0, 540.0, 200.0), 3.0, 3.0)
    assert track.pose.box == pytest.approx((500, 100, 540, 200))
    assert track.centre == pytest.approx([520, 150])
    assert track.velocity[0] == pytest.approx(50) and track.seconds == 3.0
