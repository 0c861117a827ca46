"""Identities over time: planned walks, leaving and returning, crossings, and the true clip."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from prunus.apps.common.media import MEDIA
from prunus.models import zoo
from prunus.runtime.tasks.pose.estimator import Pose, PoseEstimator
from prunus.runtime.tasks.pose.identities import score_identities, true_boxes
from prunus.runtime.tasks.pose.people import PeopleFinder
from prunus.runtime.tasks.pose.similarity import box_of_joints, keypoint_similarity
from prunus.runtime.tasks.pose.smoothing import Smoothing, smooth
from prunus.runtime.tasks.pose.tracking.finding import Finding
from prunus.runtime.tasks.pose.tracking.single import SinglePerson
from prunus.runtime.tasks.pose.tracking.tracker import PeopleTracker, TrackerOptions

FRAME = np.zeros((400, 600, 3), np.uint8)
BODY = np.random.default_rng(3).uniform(-1, 1, (17, 2)) * [15, 40]


def _person(x: float, y: float = 200.0, score: float = 0.9) -> Pose:
    keypoints = np.concatenate([BODY + np.array((x, y)), np.full((17, 1), score)], 1).astype(
        np.float32
    )
    return Pose(keypoints, (x - 20, y - 48, x + 20, y + 48), score)


class World:
    """People at known places; the estimator sees whoever is nearest to the centre of a box."""

    def __init__(self) -> None:
        self.people: list[Pose] = []
        self.finds = 0

    def find(self, frame: np.ndarray) -> list[Pose]:
        self.finds += 1
        return list(self.people)

    def estimate(self, frame: np.ndarray, boxes: np.ndarray) -> list[Pose]:
        found = []
        for box in boxes:
            centre = (box[:2] + box[2:]) / 2
            gaps = [np.linalg.norm(p.keypoints[:, :2].mean(0) - centre) for p in self.people]
            near = bool(gaps) and min(gaps) < 60
            found.append(
                self.people[int(np.argmin(gaps))] if near else _person(*centre, score=0.01)
            )
        return found


def _ids(poses: list[Pose]) -> list[int]:
    return [p.track_id for p in poses]


def each(frames: int, **options) -> TrackerOptions:
    """Return settings that look for people in every n-th frame."""
    return TrackerOptions(finding=Finding(every=frames), **options)


def test_walkers_keep_their_identity_and_the_finder_rests() -> None:
    world, tracker = World(), PeopleTracker(each(5))
    for step in range(30):
        world.people = [_person(100 + 6 * step), _person(500 - 5 * step, 300)]
        poses = tracker.update(FRAME, world.find, world.estimate)
        assert _ids(poses) == [0, 1]
        assert poses[0].keypoints[:, 0].mean() == pytest.approx(
            world.people[0].keypoints[:, 0].mean()
        )
    assert world.finds == 6


def _ids_after(absence: int, options: TrackerOptions, away: float = 0.0) -> list[int]:
    """Return identities at the end, when a person was away for so many frames of 1/30 s."""
    world, tracker = World(), PeopleTracker(options)
    for step in range(absence + 22):
        gone = 6 <= step < 6 + absence
        world.people = [] if gone else [_person(200 + (away if step >= 6 else 0.0))]
        poses = tracker.update(FRAME, world.find, world.estimate)
        assert not (gone and poses)
    return _ids(poses)


@pytest.mark.parametrize("absence", [4, 60, 280])
def test_whoever_returns_within_the_memory_is_the_same(absence) -> None:
    assert _ids_after(absence, each(3)) == [0]


def test_whoever_stays_away_longer_is_somebody_new() -> None:
    assert _ids_after(70, each(3, memory_s=2.0)) == [1]
    assert _ids_after(50, each(3, memory_s=2.0)) == [0]


def test_whoever_appears_far_from_where_somebody_left_is_somebody_new() -> None:
    assert _ids_after(60, each(3), away=100) == [0]
    assert _ids_after(60, each(3), away=340) == [1]


def test_people_of_other_clothes_are_not_the_one_who_left() -> None:
    """In the same place after a minute's third: the colours along the limbs decide."""
    limbs = [(k, k + 1) for k in range(16)]
    for colour, expected in (((200, 40, 30), [0]), ((30, 40, 220), [1])):
        world, tracker = World(), PeopleTracker(each(2), limbs=limbs)
        for step in range(70):
            frame = np.zeros((400, 600, 3), np.uint8)
            frame[:] = (200, 40, 30) if step < 20 else colour
            world.people = [] if 10 <= step < 55 else [_person(200 if step < 10 else 228)]
            poses = tracker.update(frame, world.find, world.estimate)
        assert _ids(poses) == expected


def test_a_newcomer_is_confirmed_before_getting_a_number() -> None:
    """A ghost of one or two frames never has one; the people of the first frame have theirs."""
    for frames, expected in ((2, [0]), (3, [0, 1])):
        world, tracker = World(), PeopleTracker(each(1, confirm=3))
        for step in range(3 + frames):
            world.people = [_person(100)] + ([_person(400)] if step >= 3 else [])
            poses = tracker.update(FRAME, world.find, world.estimate)
        assert _ids(poses) == expected


def test_a_crossing_does_not_swap_or_merge() -> None:
    world, tracker = World(), PeopleTracker(each(4))
    for step in range(40):
        left, right = _person(100 + 8 * step), _person(420 - 8 * step, 206)
        hidden = abs(left.keypoints[:, 0].mean() - right.keypoints[:, 0].mean()) < 25
        world.people = [left] if hidden else [left, right]
        poses = tracker.update(FRAME, world.find, world.estimate)
        assert len({p.track_id for p in poses}) == len(poses)
    assert _ids(poses) == [0, 1]
    assert poses[0].keypoints[:, 0].mean() > poses[1].keypoints[:, 0].mean()


def test_a_lost_person_coasts_ever_slower_in_the_direction_of_the_walk() -> None:
    """Where the crops lie says where the tracker believes the person to be."""
    world, tracker = World(), PeopleTracker(each(1000, hidden_s=5.0))
    centres: list[np.ndarray] = []

    def estimate(frame: np.ndarray, boxes: np.ndarray) -> list[Pose]:
        centres.append((boxes[0, :2] + boxes[0, 2:]) / 2)
        return world.estimate(frame, boxes)

    for step in range(60):
        world.people = [_person(100 + 8 * step, 60 + 3 * step)] if step < 30 else []
        tracker.update(FRAME, world.find, estimate)
    seen, lost = np.diff(centres[15:30], axis=0), np.diff(centres[31:], axis=0)
    np.testing.assert_allclose(seen, [[8, 3]] * len(seen), atol=0.05)
    np.testing.assert_allclose(lost[0], [8, 3], atol=0.4)
    # A speed falls to a third in a second; after half a second the place is given up.
    np.testing.assert_allclose(lost[11] / lost[0], np.exp(-11 / 30), rtol=0.02)
    assert len(lost) == 13


def test_a_person_hidden_while_walking_is_the_same_where_the_walk_leads() -> None:
    world, tracker = World(), PeopleTracker()
    for step in range(40):
        world.people = [] if 20 <= step < 26 else [_person(60 + 16 * min(step, 23))]
        poses = tracker.update(FRAME, world.find, None)
    assert _ids(poses) == [0]


def test_two_finds_of_one_person_give_one_track() -> None:
    world, tracker = World(), PeopleTracker(each(2))
    world.people = [_person(200)]
    twice = lambda frame: [_person(200), _person(203)]  # noqa: E731
    for _ in range(9):
        assert _ids(tracker.update(FRAME, twice, world.estimate)) == [0]


def test_a_ghost_ends_when_the_finder_keeps_missing_it() -> None:
    world, tracker = World(), PeopleTracker(each(2, missed_finds=2, hidden_s=0.3))
    world.people = [_person(200)]
    tracker.update(FRAME, world.find, world.estimate)
    nothing = lambda frame: []  # noqa: E731  the estimator still believes
    seen = [len(tracker.update(FRAME, nothing, world.estimate)) for _ in range(14)]
    assert seen[0] == 1
    assert seen[-1] == 0


def test_without_an_estimator_the_finder_runs_each_frame() -> None:
    world, tracker = World(), PeopleTracker()
    for step in range(8):
        world.people = [_person(300 - 5 * step), _person(100 + 5 * step, 320)][
            :: 1 - 2 * (step % 2)
        ]
        poses = tracker.update(FRAME, world.find, None)
        assert _ids(poses) == [0, 1]
        assert poses[0].box[1] < poses[1].box[1]
    assert world.finds == 8


def test_nobody_and_reset() -> None:
    world, tracker = World(), PeopleTracker(each(1))
    assert tracker.update(FRAME, world.find, world.estimate) == []
    world.people = [_person(50)]
    for _ in range(3):
        poses = tracker.update(FRAME, world.find, world.estimate)
    assert _ids(poses) == [0]
    tracker.reset()
    assert _ids(tracker.update(FRAME, world.find, world.estimate)) == [0]


def test_at_most_so_many_people_are_followed() -> None:
    world, tracker = World(), PeopleTracker(each(1, most_people=2))
    for _ in range(6):
        world.people = [_person(100), _person(300), _person(500)]
        poses = tracker.update(FRAME, world.find, world.estimate)
    assert len(poses) == 2


def test_short_of_time_the_slow_are_read_less_often_and_say_how_old_they_are() -> None:
    world, tracker = World(), PeopleTracker(each(5))
    read = {0: 0, 1: 0, 2: 0}
    ages: list[float] = []
    for step in range(60):
        world.people = [_person(40 + 7 * step), _person(300, 300), _person(500, 100)]
        poses = tracker.update(FRAME, world.find, world.estimate, most=1)
        if step >= 10:
            for p in poses:
                read[p.track_id] += p.age_s == 0
                ages.append(p.age_s)
                gap = p.keypoints[:, 0] - world.people[p.track_id].keypoints[:, 0]
                assert abs(gap).max() < 2.0  # those who were not read have moved on as they did
    assert sum(read.values()) == 50
    assert read[0] > 2 * max(read[1], read[2])
    assert min(read[1], read[2]) >= 3
    assert 0.05 < max(ages) < 1.0


def test_answers_of_a_moment_ago_fit_people_who_have_moved_on() -> None:
    """A finder in the background answers eight frames late, 56 pixels behind a walker."""
    world, tracker = World(), PeopleTracker()
    places: list[list[Pose]] = []
    for step in range(40):
        world.people = [_person(60 + 7 * step), _person(560 - 7 * step, 320)]
        places.append(list(world.people))
        now = step / 30
        if step == 0:
            tracker.take(world.people, now, now, FRAME)
        elif step % 8 == 0:
            tracker.take(places[step - 8], (step - 8) / 30, now, FRAME)
        poses = tracker.follow(FRAME, world.estimate, now)
        assert _ids(poses) == [0, 1]
        assert poses[0].box[0] == pytest.approx(box_of_joints(world.people[0])[0], abs=1)


def test_a_single_person_is_cropped_around_the_last_pose() -> None:
    world, single = World(), SinglePerson()
    world.people = [_person(300)]
    boxes: list[np.ndarray] = []

    def estimate(frame: np.ndarray, box: np.ndarray) -> list[Pose]:
        boxes.append(box[0])
        return world.estimate(frame, box)

    first = single.update(FRAME, estimate)[0]
    assert boxes[0].tolist() == [0, 0, 600, 400]
    single.update(FRAME, estimate)
    assert tuple(boxes[1]) == box_of_joints(first)
    world.people = []
    assert single.update(FRAME, estimate) == []
    single.update(FRAME, estimate)
    assert boxes[-1].tolist() == [0, 0, 600, 400]


def test_keypoint_similarity_is_that_of_coco() -> None:
    a, b = _person(100), _person(104)
    value = keypoint_similarity([a], [b], np.full(17, 0.05))[0, 0]
    assert value == pytest.approx(np.exp(-16 / (2 * 40 * 96 * 0.1**2)), rel=1e-4)
    assert keypoint_similarity([a], [_person(100, score=0.0)], np.full(17, 0.05))[0, 0] == 0


@pytest.fixture(scope="module")
def clip():
    """Frames, true boxes, finder and estimator of the bundled clip."""
    benchmarks = Path(__file__).parents[5] / "benchmarks"
    marks = json.loads((benchmarks / "apps" / "walkers.json").read_text())
    video = cv2.VideoCapture(str(MEDIA / "pedestrians.mp4"))
    frames = [video.read()[1] for _ in range(100)]
    with (
        PeopleFinder.open(zoo.model_path("movenet_multipose"), "onnxruntime", threads=1) as finder,
        PoseEstimator.open(
            zoo.model_path("movenet_lightning"), "onnxruntime", threads=1
        ) as estimator,
    ):
        yield frames, true_boxes(marks["people"], 100), finder, estimator


def _followed(clip, options: TrackerOptions, frames: range) -> list[dict[int, tuple]]:
    pictures, _, finder, estimator = clip
    post = estimator.postprocess
    tracker = PeopleTracker(options, post.sigmas, limbs=post.limbs, flip_pairs=post.flip_pairs)
    found = []
    for number in frames:
        poses = tracker.update(pictures[number], finder, estimator, number / 10)
        found.append({p.track_id: p.box for p in poses})
    return found


def test_the_marked_crossing_has_no_switch(clip) -> None:
    """Frames 76 to 99: two walk through one another's way beside a third; five more people."""
    frames = range(76, 100)
    scores = score_identities(
        [clip[1][k] for k in frames], _followed(clip, TrackerOptions(), frames)
    )
    assert scores.switches == 0
    assert scores.identities <= 1.2 * scores.people
    assert scores.idf1 > 0.9


@pytest.mark.slow
def test_the_whole_clip_has_hardly_more_identities_than_people(clip) -> None:
    """Ten seconds: three crossings, a post that hides people, somebody who leaves."""
    scores = score_identities(clip[1], _followed(clip, TrackerOptions(), range(100)))
    assert (scores.people, scores.identities <= 1.2 * 8) == (8, True)
    assert scores.idf1 > 0.8
    assert scores.recall > 0.88


def test_joints_may_be_read_between_the_halves_of_a_frame() -> None:
    whole, halves, world = PeopleTracker(each(3)), PeopleTracker(each(3)), World()
    for step in range(9):
        now = step / 30
        world.people = [_person(100 + 4 * step), _person(400 - 3 * step)][: 2 if step < 6 else 1]
        expected = whole.update(FRAME, world.find, world.estimate, now, 1 if step == 4 else None)
        if halves.wants(FRAME, now):
            halves.take(world.find(FRAME), now, now, FRAME)
        boxes = halves.crops(now, 1 if step == 4 else None)
        poses = halves.read(FRAME, world.estimate(FRAME, boxes), now)
        assert [(p.track_id, p.box, p.age_s) for p in poses] == [
            (p.track_id, p.box, p.age_s) for p in expected
        ]
        assert len(boxes) == (1 if step == 4 else 2)


def test_joints_are_smoothed_by_the_diagonal_of_the_person() -> None:
    world, settings, state = World(), Smoothing(), None
    tracker = PeopleTracker(each(1, smoothing=settings, confirm=1))
    for k, x in enumerate((200.0, 203.0, 204.0)):
        world.people = [_person(x)]
        (shown,) = tracker.update(FRAME, world.find, world.estimate, k / 25)
        x0, y0, x1, y1 = box_of_joints(world.people[0])
        expected, state = smooth(
            world.people[0].keypoints, np.hypot(x1 - x0, y1 - y0), k / 25, state, settings
        )
        np.testing.assert_allclose(shown.keypoints, expected, rtol=1e-6)
    assert abs(shown.keypoints[0, 0] - world.people[0].keypoints[0, 0]) > 0.2
