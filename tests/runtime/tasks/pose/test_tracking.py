"""Identities over time: planned walks, leaving and returning, crossings, and the true clip."""

import itertools

import cv2
import numpy as np
import pytest

from prunus.apps.common.media import MEDIA
from prunus.models import zoo
from prunus.runtime.errors import UsageError
from prunus.runtime.tasks.pose.estimator import Pose, PoseEstimator
from prunus.runtime.tasks.pose.people import PeopleFinder
from prunus.runtime.tasks.pose.similarity import box_of_joints, keypoint_similarity
from prunus.runtime.tasks.pose.tracking import PeopleTracker, SinglePerson, TrackerOptions

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


def test_walkers_keep_their_identity_and_the_finder_rests() -> None:
    world, tracker = World(), PeopleTracker(TrackerOptions(every=5))
    for step in range(30):
        world.people = [_person(100 + 6 * step), _person(500 - 5 * step, 300)]
        poses = tracker.update(FRAME, world.find, world.estimate)
        assert _ids(poses) == [0, 1]
        assert poses[0].keypoints[:, 0].mean() == pytest.approx(
            world.people[0].keypoints[:, 0].mean()
        )
    assert world.finds == 6


def test_returning_soon_is_the_same_and_returning_late_is_somebody_new() -> None:
    for absence, expected in ((4, [0]), (40, [1])):
        world, tracker = World(), PeopleTracker(TrackerOptions(every=3, missed_finds=5))
        for step in range(absence + 12):
            world.people = [] if 6 <= step < 6 + absence else [_person(200)]
            poses = tracker.update(FRAME, world.find, world.estimate)
            if not world.people:
                assert poses == []
        assert _ids(poses) == expected


def test_a_crossing_does_not_swap_or_merge() -> None:
    world, tracker = World(), PeopleTracker(TrackerOptions(every=4))
    for step in range(40):
        left, right = _person(100 + 8 * step), _person(420 - 8 * step, 206)
        hidden = abs(left.keypoints[:, 0].mean() - right.keypoints[:, 0].mean()) < 25
        world.people = [left] if hidden else [left, right]
        poses = tracker.update(FRAME, world.find, world.estimate)
    assert _ids(poses) == [0, 1]
    assert poses[0].keypoints[:, 0].mean() > poses[1].keypoints[:, 0].mean()


def _back_after(absence: int, *, follow: bool, **options) -> tuple[int, list[int]]:
    """Return identity of a person before and after so many frames without anybody."""
    world, tracker = World(), PeopleTracker(TrackerOptions(missed_finds=1000, **options))
    steps = []
    for step in range(absence + 2):
        world.people = [_person(200)] if step in (0, absence + 1) else []
        estimate = world.estimate if follow else None
        steps.append(_ids(tracker.update(FRAME, world.find, estimate)))
    assert steps[1:-1] == [[]] * absence
    return steps[0][0], steps[-1]


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("timeout", [1, 7])
def test_a_track_lives_as_long_as_the_time_out_and_no_frame_longer(timeout, follow) -> None:
    for absence, expected in ((timeout, [0]), (timeout + 1, [1])):
        back = _back_after(absence, follow=follow, every=1, timeout_frames=timeout)
        assert back == (0, expected)
    assert TrackerOptions().timeout_frames == 15


def test_a_track_outlives_one_find_less_than_allowed() -> None:
    for missed, expected in ((2, [0]), (3, [1])):
        world, tracker = World(), PeopleTracker(TrackerOptions(every=1, missed_finds=3))
        for step in range(missed + 2):
            world.people = [_person(200)] if step in (0, missed + 1) else []
            poses = tracker.update(FRAME, world.find, world.estimate)
        assert _ids(poses) == expected


def test_a_lost_person_coasts_ever_slower_in_the_direction_of_the_walk() -> None:
    """Where the crops lie says where the tracker believes the person to be."""
    world, tracker = World(), PeopleTracker(TrackerOptions(every=1000, timeout_frames=60))
    centres: list[np.ndarray] = []

    def estimate(frame: np.ndarray, boxes: np.ndarray) -> list[Pose]:
        centres.append((boxes[0, :2] + boxes[0, 2:]) / 2)
        return world.estimate(frame, boxes)

    for step in range(40):
        world.people = [_person(100 + 8 * step, 60 + 3 * step)] if step < 20 else []
        tracker.update(FRAME, world.find, estimate)
    seen, lost = np.diff(centres[10:20], axis=0), np.diff(centres[20:], axis=0)
    np.testing.assert_allclose(seen, [[8, 3]] * len(seen), atol=0.02)
    # The first crop without the person is a whole step on; from then on 0.85 of the step before.
    np.testing.assert_allclose(centres[20] - centres[19], [8, 3], atol=0.02)
    shares = 0.85 ** np.arange(1, 1 + len(lost))
    np.testing.assert_allclose(lost, shares[:, None] * [8, 3], atol=0.02)


def test_a_person_hidden_while_walking_is_the_same_where_the_walk_leads() -> None:
    """Without coasting the person, 64 pixels on, would overlap nothing and be somebody new."""
    world, tracker = World(), PeopleTracker()
    for step in range(40):
        world.people = [] if 20 <= step < 26 else [_person(60 + 16 * min(step, 23))]
        poses = tracker.update(FRAME, world.find, None)
    assert _ids(poses) == [0]


def test_two_finds_of_one_person_give_one_track() -> None:
    world, tracker = World(), PeopleTracker()
    world.people = [_person(200)]
    twice = lambda frame: [_person(200), _person(203)]  # noqa: E731
    for _ in range(5):
        assert _ids(tracker.update(FRAME, twice, world.estimate)) == [0]


def test_a_ghost_ends_when_the_finder_keeps_missing_it() -> None:
    world, tracker = World(), PeopleTracker(TrackerOptions(every=2, missed_finds=2))
    world.people = [_person(200)]
    tracker.update(FRAME, world.find, world.estimate)
    nothing = lambda frame: []  # noqa: E731  the estimator still believes
    seen = [len(tracker.update(FRAME, nothing, world.estimate)) for _ in range(6)]
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
    world, tracker = World(), PeopleTracker()
    assert tracker.update(FRAME, world.find, world.estimate) == []
    world.people = [_person(50)]
    assert _ids(tracker.update(FRAME, world.find, world.estimate)) == [0]
    tracker.reset()
    assert _ids(tracker.update(FRAME, world.find, world.estimate)) == [0]
    with pytest.raises(UsageError):
        TrackerOptions(every=0)


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


def test_identities_hold_on_the_clip() -> None:
    """Three seconds of true video: eight walkers at the start, none of whom may change."""
    tracker = PeopleTracker(TrackerOptions(every=10))
    video = cv2.VideoCapture(str(MEDIA / "pedestrians.mp4"))
    places: dict[int, list[tuple[int, float, float]]] = {}
    with (
        PeopleFinder.open(zoo.model_path("movenet_multipose"), "onnxruntime", threads=1) as finder,
        PoseEstimator.open(
            zoo.model_path("movenet_lightning"), "onnxruntime", threads=1
        ) as estimator,
    ):
        for number in range(22):
            _, frame = video.read()
            for p in tracker.update(frame, finder, estimator, number / 10):
                x, y = (p.box[0] + p.box[2]) / 2, (p.box[1] + p.box[3]) / 2
                places.setdefault(p.track_id, []).append((number, x, y))
    steady = [track for track in places.values() if len(track) >= 18]
    assert len(steady) >= 6
    assert len(places) <= 11
    for track in steady:  # nobody walks 25 pixels in a tenth of a second in this view
        for (n0, x0, y0), (n1, x1, y1) in itertools.pairwise(track):
            assert np.hypot(x1 - x0, y1 - y0) / (n1 - n0) < 25
