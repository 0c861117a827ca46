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
from prunus.runtime.tasks.pose.assignment import assign
from prunus.runtime.tasks.pose.estimator import Pose
from prunus.runtime.tasks.pose.similarity import box_iou, box_of_joints, keypoint_similarity
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
from prunus.runtime.tasks.pose.tracking.looks import Looks, alike, blended, looks_of
from prunus.runtime.tasks.pose.tracking.track import Track, centre_of

Frame = npt.NDArray[np.uint8]
Finder = Callable[[Frame], list[Pose]]
Estimator = Callable[[Frame, npt.NDArray[np.float64]], list[Pose]]
Doubles = npt.NDArray[np.float64]

# OKS constants of COCO-17; other joint sets use their mean unless sigmas are given.
_COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107,
    0.087, 0.087, 0.089, 0.089,
)  # fmt: skip

_LOOKS = 0.5  # weight of the clothes beside place and joints
_REACH = (0.6, 1.5, 3.0)  # heights that a lost person may be off: at once, more per second, at most
_SIZES = 1.7  # by which factor the size of a lost person may differ
_FOREIGN = 0.1  # clothes less alike are another person's, wherever it appears
_RETURN = 0.35  # least similarity of a lost person's place and clothes
_INSIDE = 0.7  # of a found box inside people who are there already: it is nobody new
_GUESS_S = 0.5  # so long the joints of somebody hidden are looked for where motion leads
_MOVING = 0.3  # heights per second by which even a still person may have begun to move
_PRESENT = 1e-6
_LEAST = 1e-3  # a pose that hardly fits is still better than none
_OWN = 0.1  # bonus of the pose of one's own crop
_IN_CROWD = 0.5  # how well a pose must fit in a crowd
_PATIENCE = (0.2, 0.5)  # of the time somebody may be hidden, in which it need fit ever less
_SIZE = 0.5  # weight of the logarithm by which a pose is taller than its person: it may be of two


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


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was read in one frame, a row per track: pose, where it was expected, crowd, clothes."""

    tracks: list[Track]
    poses: list[Pose]
    expected: list[Pose]
    crowding: list[float]
    looks: list[Looks]

    def chosen(self, poses: Sequence[int]) -> _Seen:
        """Return the rows of those who have a pose, whichever it is."""
        rows = [k for k, pose in enumerate(poses) if pose >= 0]
        return _Seen(
            [self.tracks[k] for k in rows],
            [self.poses[poses[k]] for k in rows],
            [self.expected[k] for k in rows],
            [self.crowding[k] for k in rows],
            [self.looks[poses[k]] for k in rows],
        )


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
        self.options = options or TrackerOptions()
        self._stream: AbstractContextManager[None] = OneStream("A people tracker")
        self._sigmas = np.array(sigmas if sigmas is not None else _COCO_SIGMAS, np.float64)
        self._limbs, self._flips = limbs, flip_pairs
        self.reset()

    def reset(self) -> None:
        """Forget everybody; identities start again at 0."""
        self.search = Search(self.options.finding)
        self._tracks: list[Track] = []
        self._gone: list[Track] = []
        self._next_id = 0
        self._frame = 0

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
        found = self._apart(found)
        first = self._next_id == 0 and not self._tracks
        looks = looks_of(frame_bgr, found, self._limbs)
        pairs = self._match(found, looks, when)
        matched = {row for row, _ in pairs}
        for row, track in enumerate(self._tracks):
            if row not in matched:
                track.missed_finds += 1
        for row, column in pairs:
            self._tracks[row].found(found[column].box, when, now)
        rest = sorted(set(range(len(found))) - {column for _, column in pairs})
        rest = [k for k in rest if not self._inside(found[k], when)]
        back = self._returned([found[k] for k in rest], looks[rest], now)
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
        read = self._chosen(now, most)
        rest = [t for t in self._tracks if t not in read]
        for track in rest:
            track.coast(now, seen=True)
        if read:
            expected = [t.predicted(now) for t in read]
            boxes = np.array([t.crop(now) for t in read], np.float64)
            crowding = overlaps(np.array([p.box for p in expected], np.float64)).max(1).tolist()
            poses = estimator(frame_bgr, boxes)
            looks = list(looks_of(frame_bgr, poses, self._limbs))
            seen = _Seen(read, poses, expected, crowding, looks)
            chosen = self._settled(seen, rest)
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
        poses = [p for p in self._apart(poses) if p.score >= self.options.minimum_score]
        looks = looks_of(frame_bgr, poses, self._limbs)
        first = self._next_id == 0 and not self._tracks
        pairs = self._match(poses, looks, now)
        matched = {row for row, _ in pairs}
        rest = sorted(set(range(len(poses))) - {column for _, column in pairs})
        seen = [(self._tracks[row], column) for row, column in pairs]
        lost = [t for row, t in enumerate(self._tracks) if row not in matched]
        back = self._returned([poses[k] for k in rest], looks[rest], now)
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

    # Matching

    def _match(self, poses: Sequence[Pose], looks: Looks, now: float) -> list[tuple[int, int]]:
        """Return pairs (track, pose): those who are seen choose before those who are hidden."""
        pairs: list[tuple[int, int]] = []
        if not poses:
            return pairs
        for wanted in (True, False):
            rows = [k for k, t in enumerate(self._tracks) if t.seen is wanted]
            free = [k for k in range(len(poses)) if k not in {column for _, column in pairs}]
            if not rows or not free:
                continue
            tracks = [self._tracks[k] for k in rows]
            place = self._similarity([t.predicted(now) for t in tracks], [poses[k] for k in free])
            clothes = alike(np.stack([t.looks for t in tracks]), looks[free])
            gain = np.where(
                place >= self.options.minimum_match, place + _LOOKS * (clothes - 0.5), -1.0
            )
            pairs += [(rows[a], free[b]) for a, b in assign(gain, _PRESENT)]
        return pairs

    def _similarity(self, first: Sequence[Pose], second: Sequence[Pose]) -> Doubles:
        iou = box_iou(*(np.array([p.box for p in poses], np.float64) for poses in (first, second)))
        joints = first[0].keypoints.shape[0]
        if joints != second[0].keypoints.shape[0]:
            return iou
        sigmas = self._sigmas
        if len(sigmas) != joints:
            sigmas = np.full(joints, sigmas.mean())
        return (iou + keypoint_similarity(first, second, sigmas)) / 2

    def _apart(self, poses: Sequence[Pose]) -> list[Pose]:
        """Return poses of which no two are one person; the surer one stays."""
        if len(poses) < 2:
            return list(poses)
        alike_ = self._similarity(poses, poses) >= self.options.same_person
        kept: list[int] = []
        for k in np.argsort([-p.score for p in poses], kind="stable"):
            if not any(alike_[k, other] for other in kept):
                kept.append(int(k))
        return [poses[k] for k in sorted(kept)]

    def _inside(self, pose: Pose, when: float) -> bool:
        """Tell whether a found box is made of people who are followed already."""
        boxes = np.array([t.box_at(when) for t in self._tracks if t.seen], np.float64)
        if not len(boxes):
            return False
        box = np.array(pose.box)
        low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
        common = np.prod(np.maximum(high - low, 0), axis=1)
        return bool(common.max() >= _INSIDE * max(np.prod(box[2:] - box[:2]), 1e-9))

    def _returned(
        self,
        poses: Sequence[Pose],
        looks: Looks,
        now: float,
    ) -> list[tuple[Track, int]]:
        """Return pairs of somebody who was lost and the index of the pose that is likely them."""
        lost = [t for t in (*self._tracks, *self._gone) if not t.seen and t.track_id >= 0]
        if not lost or not poses:
            return []
        gain = np.zeros((len(lost), len(poses)))
        clothes = alike(np.stack([t.looks for t in lost]), looks)
        at_once, per_second, limit = _REACH
        for row, track in enumerate(lost):
            away = now - track.seen_s
            reach = min(at_once + per_second * away, limit) * max(track.height, 1.0)
            middle = centre_of(track.predicted(now).box)
            for column, pose in enumerate(poses):
                tall = max(pose.box[3] - pose.box[1], 1.0)
                size = max(tall / max(track.height, 1.0), track.height / tall)
                gap = float(np.linalg.norm(centre_of(pose.box) - middle)) / reach
                if gap < 1 and size < _SIZES and clothes[row, column] > _FOREIGN:
                    gain[row, column] = (1 - gap + clothes[row, column]) / 2
        return [(lost[row], column) for row, column in assign(gain, _RETURN)]

    def _bring_back(self, track: Track, pose: Pose, when: float, now: float) -> None:
        if track not in self._tracks:
            self._gone.remove(track)
            self._tracks.append(track)
        track.pose = dataclasses.replace(pose, track_id=track.track_id)
        track.velocity = np.zeros(2)
        track.seconds = now
        track.trail.clear()
        track.found(pose.box, now, now)

    # One frame

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

    def _settled(self, seen: _Seen, rest: Sequence[Track]) -> list[int]:
        """Return the index of each track's pose, -1 for those who are not seen.

        Where people cross, the crop of one may show the other: two crops lock on the one in front,
        or each on the other's. So poses of a crowd are handed out anew, each once, to those whom
        place, motion and clothes fit best; who gets none coasts.

        Args:
            seen: Tracks whose joints were read, and what was read.
            rest: The other tracks.
        """
        tracks, poses, own_pose = seen.tracks, seen.poses, np.eye(len(seen.poses), dtype=bool)
        clothes = alike(np.stack([t.looks for t in tracks]), np.stack(seen.looks))
        sizes = _taller(tracks, poses)
        gain = self._similarity(seen.expected, poses) + _LOOKS * (clothes - 0.5) - _SIZE * sizes
        own = np.diag(gain).copy()
        own[[t.sights == 0 for t in tracks]] = _LEAST  # a track that has just begun gives way
        least = [self._least(t, c > TOUCH) for t, c in zip(tracks, seen.crowding, strict=True)]
        usable = (own >= least) & (np.diag(sizes) < np.log(_SIZES))
        usable &= np.array([p.score for p in poses]) >= self.options.minimum_score
        # Each person once, as the crop shows them that knew best where they are.
        same = self._similarity(poses, [*poses, *(t.pose for t in rest if t.seen)])
        alone: list[int] = list(range(len(poses), same.shape[1]))
        for row in np.argsort(-own, kind="stable"):
            doubled = any(same[row, other] >= self.options.same_person for other in alone)
            if usable[row] and not doubled:
                alone.append(int(row))
        shown = np.isin(np.arange(len(poses)), alone)
        close = overlaps(np.array([p.box for p in poses], np.float64)) > TOUCH
        # A new track has no motion yet: nobody else's pose is its own.
        known = np.array([t.sights > 1 for t in tracks])
        allowed = ((close & known[:, None]) | own_pose) & shown[None]
        scores = np.where(allowed, np.maximum(gain, _LEAST), 0.0)
        np.fill_diagonal(scores, np.where(shown, np.maximum(own, _LEAST) + _OWN, 0.0))
        pairs = dict(assign(scores, _PRESENT))
        return [pairs.get(k, -1) for k in range(len(tracks))]

    def _least(self, track: Track, crowded: bool) -> float:
        """Return how well a pose must fit a track at least: in a crowd it may be another's."""
        if not track.sights:
            return 0.0
        if not crowded:
            return self.options.minimum_match if not track.seen else 0.0
        hidden = (track.seconds - track.seen_s) / self.options.hidden_s
        return float(np.interp(hidden, _PATIENCE, (_IN_CROWD, self.options.minimum_match)))

    def _see(self, seen: _Seen, now: float) -> None:
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


def _taller(tracks: Sequence[Track], poses: Sequence[Pose]) -> Doubles:
    """Return by how much poses are off people's heights, as logarithms; 0 for a new track."""
    boxes = np.array([box_of_joints(p) for p in poses], np.float64)
    tall = np.log(np.maximum(boxes[:, 3] - boxes[:, 1], 1.0))
    usual = np.log([max(t.height, 1.0) for t in tracks])
    known = np.array([t.sights > 0 for t in tracks])
    return np.asarray(np.abs(tall[None] - usual[:, None]) * known[:, None])
