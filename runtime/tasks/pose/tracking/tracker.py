"""Follow people from frame to frame: a finder by time and need, the pose network in between.

Finding people in a whole frame costs more than reading the joints of a few crops. So the finder
runs when `finding` says so; in between each person is cropped around the joints of the previous
frame. Identities come from matching people by boxes, joints and clothes. Somebody who is hidden
goes on as the motion was, ever slower; somebody who stays away longer is remembered for a while,
and gets the old number back where place, size and clothes fit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from prunus.runtime.tasks.calls import OneStream, in_turn
from prunus.runtime.tasks.pose.estimator import Pose
from prunus.runtime.tasks.pose.smoothing import Smoothing, smooth
from prunus.runtime.tasks.pose.tracking.bodies import (
    TOUCH,
    Limbs,
    grown,
    limb_lengths,
    overlaps,
    separated,
    within_reach,
)
from prunus.runtime.tasks.pose.tracking.finding import Finding, Search
from prunus.runtime.tasks.pose.tracking.looks import blended, looks_of
from prunus.runtime.tasks.pose.tracking.matching import Matcher, Seen, inside, returned
from prunus.runtime.tasks.pose.tracking.track import Track

Frame = npt.NDArray[np.uint8]
Finder = Callable[[Frame], list[Pose]]
Estimator = Callable[[Frame, npt.NDArray[np.float64]], list[Pose]]

_GUESS_S = 0.5  # so long the joints of somebody hidden are looked for where motion leads
_MOVING = 0.3  # heights per second by which even a still person may have begun to move


@dataclass(frozen=True, slots=True)
class TrackerOptions:
    """Settings of the tracker.

    Attributes:
        finding: When the finder runs.
        minimum_score: A pose below counts as "not seen".
        minimum_match: Least similarity (mean of OKS and IoU, 0..1) of the same person.
        same_person: Two poses at least this alike are one person, whom only one track may have.
        confirm: Frames in which somebody must be seen before getting a number; those of the first
            frame have theirs at once.
        hidden_s: Somebody unseen for longer is no longer looked for around the expected place.
        memory_s: Somebody unseen for longer is somebody new.
        missed_finds: Somebody whom the finder misses so often in a row, for `hidden_s`, is gone.
        most_people: At most so many people are followed; None for all.
        smoothing: Filter of the joints, None for raw joints.
    """

    finding: Finding = field(default_factory=Finding)
    minimum_score: float = 0.15
    minimum_match: float = 0.2
    same_person: float = 0.55
    confirm: int = 3
    hidden_s: float = 1.5
    memory_s: float = 10.0
    missed_finds: int = 3
    most_people: int | None = None
    smoothing: Smoothing | None = None


class PeopleTracker:
    """Keep the people of one video, frame by frame; each video needs a tracker of its own.

    Finder and estimator may be shared among the trackers of several threads.

    Args:
        options: Settings.
        sigmas: OKS constants, e.g. from the card of the pose network; COCO's when left out.
        limbs: Pairs of joints that a bone joins; none: limbs are not checked.
        flip_pairs: Pairs of joints that are each other's mirror image.

    Attributes:
        search: When the finder runs; its `stretch` may be changed from frame to frame.
    """

    def __init__(
        self,
        options: TrackerOptions | None = None,
        sigmas: Sequence[float] | None = None,
        *,
        limbs: Limbs = (),
        flip_pairs: Sequence[tuple[int, int]] = (),
    ) -> None:
        self._options = options or TrackerOptions()
        self._stream: AbstractContextManager[None] = OneStream("A people tracker")
        self._matcher = Matcher(self._options, sigmas)
        self._limbs, self._flips = limbs, flip_pairs
        self.reset()

    def reset(self) -> None:
        """Forget everybody; identities start again at 0."""
        self.search = Search(self.options.finding)
        self._tracks: list[Track] = []
        self._gone: list[Track] = []
        self._asked: list[Track] = []  # whose joints are being read
        self._next_id = 0
        self._frame = 0

    @property
    def options(self) -> TrackerOptions:
        """Settings; may be replaced between frames."""
        return self._options

    @options.setter
    def options(self, options: TrackerOptions) -> None:
        self._options = self._matcher.limits = options

    @property
    def people(self) -> int:
        """How many people are followed, hidden ones included."""
        return len(self._tracks)

    @in_turn
    def update(
        self,
        frame_bgr: Frame,
        finder: Finder,
        estimator: Estimator | None,
        seconds: float = -1.0,
        most: int | None = None,
    ) -> list[Pose]:
        """Take one frame; return the people seen in it, oldest first.

        Args:
            frame_bgr: uint8 (height, width, 3) BGR.
            finder: Finds people in whole frames, e.g. a `PeopleFinder`.
            estimator: Reads joints in boxes, e.g. a `PoseEstimator`; None takes the finder's
                joints, which then runs on each frame.
            seconds: Time of the frame; 30 frames a second when left out.
            most: See `follow`.

        Returns:
            Poses with their `track_id`.
        """
        now = self._time(seconds)
        if estimator is None:
            return self.associate(finder(frame_bgr), now, frame_bgr)
        if self.wants(frame_bgr, now):
            self.take(finder(frame_bgr), now, now, frame_bgr)
        return self.follow(frame_bgr, estimator, now, most)

    @in_turn
    def wants(self, frame_bgr: Frame, now: float) -> bool:
        """Tell whether the finder is due in this frame; whoever asks then runs it."""
        lost = sum(1 for t in self._tracks if not t.seen)
        boxes = [t.predicted(now).box for t in self._tracks if t.seen]
        return self.search.due(frame_bgr, now, boxes, lost)

    @in_turn
    def take(self, found: Sequence[Pose], when: float, now: float, frame_bgr: Frame) -> None:
        """Take what the finder found: correct those who are followed, start those who are new.

        Args:
            found: People of a frame.
            when: Time of that frame.
            now: Time of the frame that comes next to `follow`; people have moved on since `when`.
            frame_bgr: The frame that was searched; clothes are compared in it.
        """
        found = self._matcher.apart(found)
        first = self._next_id == 0 and not self._tracks
        looks = looks_of(frame_bgr, found, self._limbs)
        pairs = self._matcher.pairs(self._tracks, found, looks, when)
        matched = {row for row, _ in pairs}
        for row, track in enumerate(self._tracks):
            if row not in matched:
                track.missed_finds += 1
        for row, column in pairs:
            self._tracks[row].found(found[column].box, when, now)
        rest = sorted(set(range(len(found))) - {column for _, column in pairs})
        rest = [k for k in rest if not inside(self._tracks, found[k], when)]
        back = returned((*self._tracks, *self._gone), [found[k] for k in rest], looks[rest], now)
        for k in rest:
            if k in {rest[column] for _, column in back} or self._full(len(back)):
                continue
            track = Track(found[k], now, looks=looks[k], found_box=found[k].box, found_s=now)
            if first:
                self._name(track)
            self._tracks.append(track)
        for track, column in back:
            self._bring_back(track, found[rest[column]], when, now)

    @in_turn
    def follow(
        self, frame_bgr: Frame, estimator: Estimator, now: float, most: int | None = None
    ) -> list[Pose]:
        """Read the joints of the people who are followed; return those who are seen.

        Args:
            frame_bgr: uint8 (height, width, 3) BGR.
            estimator: Reads joints in boxes.
            now: Time of the frame in seconds.
            most: Read the joints of so many people only: those who are new, lost, fast, or not read
                for long. The others move on as they did, and their `age_s` grows.

        Returns:
            Poses with their `track_id` and `age_s`, oldest first.
        """
        boxes = self.crops(now, most)
        return self.read(frame_bgr, estimator(frame_bgr, boxes) if len(boxes) else [], now)

    @in_turn
    def crops(self, now: float, most: int | None = None) -> npt.NDArray[np.float64]:
        """Begin what `follow` does: return in which boxes joints are to be read, for `read`.

        Args:
            now: Time of the frame in seconds.
            most: See `follow`.

        Returns:
            (people, 4) of x0, y0, x1, y1 in image pixels.
        """
        self._asked = self._chosen(now, most)
        for track in self._tracks:
            if track not in self._asked:
                track.coast(now, seen=True)
        return np.array([t.crop(now) for t in self._asked], np.float64).reshape(-1, 4)

    @in_turn
    def read(self, frame_bgr: Frame, poses: Sequence[Pose], now: float) -> list[Pose]:
        """End what `follow` does.

        Args:
            frame_bgr: uint8 (height, width, 3) BGR.
            poses: What an estimator read in the boxes of `crops`, in their order.
            now: Time of the frame in seconds.

        Returns:
            As `follow`.
        """
        read, self._asked = self._asked, []
        if read:
            expected = [t.predicted(now) for t in read]
            crowding = overlaps(np.array([p.box for p in expected], np.float64)).max(1).tolist()
            rest = [t for t in self._tracks if t not in read]
            looks = list(looks_of(frame_bgr, poses, self._limbs))
            seen = Seen(read, list(poses), expected, crowding, looks)
            chosen = self._matcher.settled(seen, rest)
            for track, pose in zip(read, chosen, strict=True):
                if pose < 0:
                    track.coast(now, seen=False)
            self._see(seen.chosen(chosen), now)
        self._remember()
        return self._finish(now)

    @in_turn
    def associate(
        self, poses: Sequence[Pose], seconds: float = -1.0, frame_bgr: Frame | None = None
    ) -> list[Pose]:
        """Give identities to poses that something else found in the whole frame.

        Args:
            poses: All people of one frame.
            seconds: Time of the frame.
            frame_bgr: uint8 (height, width, 3) BGR, to compare clothes in.

        Returns:
            The poses that count as seen, with their `track_id`, oldest first.
        """
        now = self._time(seconds)
        poses = [p for p in self._matcher.apart(poses) if p.score >= self.options.minimum_score]
        looks = looks_of(frame_bgr, poses, self._limbs)
        first = self._next_id == 0 and not self._tracks
        pairs = self._matcher.pairs(self._tracks, poses, looks, now)
        matched = {row for row, _ in pairs}
        rest = sorted(set(range(len(poses))) - {column for _, column in pairs})
        seen = [(self._tracks[row], column) for row, column in pairs]
        lost = [t for row, t in enumerate(self._tracks) if row not in matched]
        back = returned((*self._tracks, *self._gone), [poses[k] for k in rest], looks[rest], now)
        for track, column in back:
            if track not in self._tracks:
                self._gone.remove(track)
                self._tracks.append(track)
            track.seconds = now
            seen.append((track, rest[column]))
        for track in lost:
            if all(track is not one for one, _ in seen):
                track.coast(now, seen=False)
        for k in sorted(set(range(len(rest))) - {column for _, column in back}):
            if self._full(0):
                break
            track = Track(poses[rest[k]], now, looks=looks[rest[k]])
            if first:
                self._name(track)
            self._tracks.append(track)
            seen.append((track, rest[k]))
        for track, column in seen:
            track.see(poses[column], now)
            track.view = looks[column]
        if frame_bgr is not None:
            self._remember()
        return self._finish(now)

    def _bring_back(self, track: Track, pose: Pose, when: float, now: float) -> None:
        if track not in self._tracks:
            self._gone.remove(track)
            self._tracks.append(track)
        track.pose = dataclasses.replace(pose, track_id=track.track_id)
        track.velocity = np.zeros(2)
        track.seconds = now
        track.trail.clear()
        track.found(pose.box, now, now)

    def _chosen(self, now: float, most: int | None) -> list[Track]:
        """Return whose joints to read, in the order of the tracks.

        Of those who are hidden for long only the finder tells when they are back.
        """
        there = [
            t
            for t in self._tracks
            if not t.sights or t.found_box is not None or now - t.seen_s <= _GUESS_S
        ]
        if most is None or most >= len(there):
            return there

        def urgency(track: Track) -> float:
            if not track.sights:
                return np.inf
            speed = float(np.linalg.norm(track.velocity)) / max(track.height, 1.0)
            return (now - track.read_s) * (speed + _MOVING)

        order = sorted(range(len(there)), key=lambda k: -urgency(there[k]))
        return [there[k] for k in sorted(order[: max(most, 1)])]

    def _see(self, seen: Seen, now: float) -> None:
        """Give each track its pose, with every joint on its own body."""
        if not seen.tracks:
            return
        mirror = np.arange(seen.poses[0].keypoints.shape[0])
        for a, b in self._flips:
            mirror[a], mirror[b] = b, a
        apart = separated(seen.poses, seen.expected, mirror)
        for k, track in enumerate(seen.tracks):
            pose = seen.poses[k]
            if track.sights:
                before = seen.expected[k]
                pose = within_reach(apart[k], before, track.height, track.limbs, self._limbs)
            track.see(pose, now, seen.crowding[k])
            track.view = seen.looks[k]

    def _remember(self) -> None:
        """Learn clothes and limbs of those whom nobody hides."""
        seen = [t for t in self._tracks if t.seen]
        if not seen:
            return
        clear = overlaps(np.array([t.pose.box for t in seen], np.float64)).max(1) <= TOUCH
        for track, alone in zip(seen, clear, strict=True):
            if alone and track.read_s == track.seconds:
                track.looks = blended(track.looks, track.view)
                lengths = limb_lengths(track.pose, track.height, self._limbs)
                track.limbs = grown(track.limbs, lengths)

    def _full(self, coming: int) -> bool:
        most = self.options.most_people
        return most is not None and len(self._tracks) + coming >= most

    def _name(self, track: Track) -> None:
        track.track_id = self._next_id
        self._next_id += 1

    def _time(self, seconds: float) -> float:
        return seconds if seconds >= 0 else self._frame / 30

    def _finish(self, now: float) -> list[Pose]:
        self._frame += 1
        options = self.options
        kept = []
        for track in self._tracks:
            hidden = now - max(track.seen_s, track.found_s)
            unfound = (
                track.missed_finds >= options.missed_finds
                and now - track.found_s > options.hidden_s
            )
            if hidden <= options.hidden_s and not unfound:
                kept.append(track)
            elif track.track_id >= 0:
                track.coast(now, seen=False)
                self._gone.append(track)
        self._tracks = [t for t in kept if t.seen or t.track_id >= 0]
        self._gone = [t for t in self._gone if now - t.seen_s <= options.memory_s]
        for track in self._tracks:
            if track.track_id < 0 and track.sights >= options.confirm:
                self._name(track)
        seen = sorted(
            (t for t in self._tracks if t.seen and t.track_id >= 0), key=lambda t: t.track_id
        )
        return [self._shown(t, now) for t in seen]

    def _shown(self, track: Track, now: float) -> Pose:
        pose = dataclasses.replace(
            track.pose, track_id=track.track_id, age_s=max(now - track.read_s, 0.0)
        )
        if self.options.smoothing is None:
            return pose
        x0, y0, x1, y1 = pose.box
        size = float(np.hypot(x1 - x0, y1 - y0))
        keypoints, track.filter = smooth(
            pose.keypoints, size, now, track.filter, self.options.smoothing
        )
        return dataclasses.replace(pose, keypoints=keypoints)
