"""Which pose is whose: by boxes, joints and clothes, in crowds anew, and after an absence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from prunus.runtime.tasks.pose.assignment import assign
from prunus.runtime.tasks.pose.estimator import Pose
from prunus.runtime.tasks.pose.similarity import box_iou, box_of_joints, keypoint_similarity
from prunus.runtime.tasks.pose.tracking.bodies import TOUCH, overlaps
from prunus.runtime.tasks.pose.tracking.looks import Looks, alike
from prunus.runtime.tasks.pose.tracking.track import Track, centre_of

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
_PRESENT = 1e-6
_LEAST = 1e-3  # a pose that hardly fits is still better than none
_OWN = 0.1  # bonus of the pose of one's own crop
_IN_CROWD = 0.5  # how well a pose must fit in a crowd
_PATIENCE = (0.2, 0.5)  # of the time somebody may be hidden, in which it need fit ever less
_SIZE = 0.5  # weight of the logarithm by which a pose is taller than its person: it may be of two


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read in one frame, a row per track: pose, where it was expected, crowd, clothes."""

    tracks: list[Track]
    poses: list[Pose]
    expected: list[Pose]
    crowding: list[float]
    looks: list[Looks]

    def chosen(self, poses: Sequence[int]) -> Seen:
        """Return the rows of those who have a pose, whichever it is."""
        rows = [k for k, pose in enumerate(poses) if pose >= 0]
        return Seen(
            [self.tracks[k] for k in rows],
            [self.poses[poses[k]] for k in rows],
            [self.expected[k] for k in rows],
            [self.crowding[k] for k in rows],
            [self.looks[poses[k]] for k in rows],
        )


class Limits(Protocol):
    """From where on a pose may be somebody's: see `TrackerOptions`."""

    @property
    def minimum_score(self) -> float:
        """A pose below counts as not seen."""

    @property
    def minimum_match(self) -> float:
        """Least similarity of the same person, 0..1."""

    @property
    def same_person(self) -> float:
        """Two poses at least this alike are one person."""

    @property
    def hidden_s(self) -> float:
        """How long somebody unseen is looked for, seconds."""


class Matcher:
    """Compare people with poses.

    Args:
        limits: From where on a pose may be somebody's.
        sigmas: OKS constants; COCO's when left out.

    Attributes:
        limits: Those; may be replaced between frames.
    """

    def __init__(self, limits: Limits, sigmas: Sequence[float] | None = None) -> None:
        self.limits = limits
        self._sigmas = np.array(sigmas if sigmas is not None else _COCO_SIGMAS, np.float64)

    def pairs(
        self, people: Sequence[Track], poses: Sequence[Pose], looks: Looks, now: float
    ) -> list[tuple[int, int]]:
        """Return pairs (track, pose): those who are seen choose before those who are hidden."""
        pairs: list[tuple[int, int]] = []
        if not poses:
            return pairs
        for wanted in (True, False):
            rows = [k for k, t in enumerate(people) if t.seen is wanted]
            free = [k for k in range(len(poses)) if k not in {column for _, column in pairs}]
            if not rows or not free:
                continue
            tracks = [people[k] for k in rows]
            place = self._similarity([t.predicted(now) for t in tracks], [poses[k] for k in free])
            clothes = alike(np.stack([t.looks for t in tracks]), looks[free])
            gain = np.where(
                place >= self.limits.minimum_match, place + _LOOKS * (clothes - 0.5), -1.0
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

    def apart(self, poses: Sequence[Pose]) -> list[Pose]:
        """Return poses of which no two are one person; the surer one stays."""
        if len(poses) < 2:
            return list(poses)
        alike_ = self._similarity(poses, poses) >= self.limits.same_person
        kept: list[int] = []
        for k in np.argsort([-p.score for p in poses], kind="stable"):
            if not any(alike_[k, other] for other in kept):
                kept.append(int(k))
        return [poses[k] for k in sorted(kept)]

    def settled(self, seen: Seen, rest: Sequence[Track]) -> list[int]:
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
        usable &= np.array([p.score for p in poses]) >= self.limits.minimum_score
        # Each person once, as the crop shows them that knew best where they are.
        same = self._similarity(poses, [*poses, *(t.pose for t in rest if t.seen)])
        alone: list[int] = list(range(len(poses), same.shape[1]))
        for row in np.argsort(-own, kind="stable"):
            doubled = any(same[row, other] >= self.limits.same_person for other in alone)
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
            return self.limits.minimum_match if not track.seen else 0.0
        hidden = (track.seconds - track.seen_s) / self.limits.hidden_s
        return float(np.interp(hidden, _PATIENCE, (_IN_CROWD, self.limits.minimum_match)))


def inside(people: Sequence[Track], pose: Pose, when: float) -> bool:
    """Tell whether a found box is made of people who are followed already."""
    boxes = np.array([t.box_at(when) for t in people if t.seen], np.float64)
    if not len(boxes):
        return False
    box = np.array(pose.box)
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    common = np.prod(np.maximum(high - low, 0), axis=1)
    return bool(common.max() >= _INSIDE * max(np.prod(box[2:] - box[:2]), 1e-9))


def returned(
    people: Sequence[Track], poses: Sequence[Pose], looks: Looks, now: float
) -> list[tuple[Track, int]]:
    """Return pairs of somebody who was lost and the index of the pose that is likely them."""
    lost = [t for t in people if not t.seen and t.track_id >= 0]
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


def _taller(tracks: Sequence[Track], poses: Sequence[Pose]) -> Doubles:
    """Return by how much poses are off people's heights, as logarithms; 0 for a new track."""
    boxes = np.array([box_of_joints(p) for p in poses], np.float64)
    tall = np.log(np.maximum(boxes[:, 3] - boxes[:, 1], 1.0))
    usual = np.log([max(t.height, 1.0) for t in tracks])
    known = np.array([t.sights > 0 for t in tracks])
    return np.asarray(np.abs(tall[None] - usual[:, None]) * known[:, None])
