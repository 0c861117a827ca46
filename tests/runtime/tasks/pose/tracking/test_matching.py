"""Which pose is whose, asked of the matcher alone."""

import numpy as np
import pytest

from prunus.runtime.tasks.pose.estimator import Pose
from prunus.runtime.tasks.pose.tracking.looks import looks_of
from prunus.runtime.tasks.pose.tracking.matching import Matcher, inside, returned
from prunus.runtime.tasks.pose.tracking.track import Track
from prunus.runtime.tasks.pose.tracking.tracker import TrackerOptions

BODY = np.random.default_rng(3).uniform(-1, 1, (17, 2)) * [15, 40]


def _person(x, y=200.0, score=0.9) -> Pose:
    joints = np.concatenate([BODY + np.array((x, y)), np.full((17, 1), score)], 1).astype(
        np.float32
    )
    return Pose(joints, (x - 20, y - 48, x + 20, y + 48), score)


def _looks(poses):
    return looks_of(None, poses, ())


def _track(x, number=0, seen_s=1.0, now=1.0) -> Track:
    pose = _person(x)
    track = Track(pose, now, track_id=number, looks=_looks([pose])[0])
    track.see(pose, seen_s)
    track.track_id = number
    if seen_s < now:
        track.coast(now, seen=False)
    return track


@pytest.fixture
def matcher():
    return Matcher(TrackerOptions())


def test_each_pose_goes_to_the_person_at_its_place(matcher) -> None:
    poses = [_person(305), _person(102), _person(500)]
    pairs = matcher.pairs([_track(100), _track(300, 1)], poses, _looks(poses), 1.0)
    assert sorted(pairs) == [(0, 1), (1, 0)]
    assert matcher.pairs([_track(100)], [], _looks([]), 1.0) == []


def test_who_is_seen_chooses_before_who_is_hidden(matcher) -> None:
    hidden, seen = _track(100, seen_s=0.9), _track(110, 1)
    assert not hidden.seen and seen.seen
    poses = [_person(102)]
    assert matcher.pairs([hidden, seen], poses, _looks(poses), 1.0) == [(1, 0)]


def test_of_two_poses_of_one_person_the_surer_stays(matcher) -> None:
    poses = [_person(100, score=0.5), _person(101, score=0.9), _person(300)]
    assert matcher.apart(poses) == poses[1:]
    assert matcher.apart(poses[:1]) == poses[:1]


def test_a_box_made_of_somebody_followed_is_nobody_new() -> None:
    tracks = [_track(100)]
    assert inside(tracks, _person(104), 1.0)
    assert not inside(tracks, _person(125), 1.0)
    assert not inside([], _person(104), 1.0)


def test_who_was_lost_comes_back_near_the_place_alone() -> None:
    lost, confirmed = _track(100, 4, seen_s=0.5), _track(300, 5)
    near, far = _person(130), _person(580)
    poses = [far, near]
    assert returned([confirmed, lost], poses, _looks(poses), 1.0) == [(lost, 1)]
    assert returned([confirmed], poses, _looks(poses), 1.0) == []
    lost.track_id = -1  # never had a number
    assert returned([lost], poses, _looks(poses), 1.0) == []
