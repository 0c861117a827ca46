"""Follow people from frame to frame: a finder now and then, the pose network in between.

Finding people in a whole frame costs more than reading the joints of a few crops. So the finder
runs every n frames (and whenever nobody is followed); in between each person is cropped around the
joints of the previous frame. Identities come from matching people by joints and boxes; a person who
stays away longer than the time-out comes back as somebody new.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import UsageError
from prunus.runtime.tasks.calls import OneStream, in_turn
from prunus.runtime.tasks.pose.assignment import assign
from prunus.runtime.tasks.pose.estimator import Pose
from prunus.runtime.tasks.pose.similarity import box_iou, box_of_joints, keypoint_similarity
from prunus.runtime.tasks.pose.smoothing import Smoothing, SmoothState, smooth

Frame = npt.NDArray[np.uint8]
Finder = Callable[[Frame], list[Pose]]
Estimator = Callable[[Frame, npt.NDArray[np.float64]], list[Pose]]

# OKS constants of COCO-17; other joint sets use their mean unless sigmas are given.
_COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107,
    0.087, 0.087, 0.089, 0.089,
)  # fmt: skip

_COAST = 0.85  # of the speed is left after each unseen frame


@dataclass(frozen=True, slots=True)
class TrackerOptions:
    """Settings of the tracker.

    Attributes:
        every: The finder runs on each n-th frame.
        minimum_score: A pose below counts as "not seen".
        minimum_match: Least similarity (mean of OKS and IoU, 0..1) of the same person.
        same_person: Two poses at least this alike are one person, whom only one track may have.
        timeout_frames: A track ends after so many frames without being seen.
        missed_finds: A track ends when the finder misses it so often in a row.
        smoothing: Filter of the joints, None for raw joints.
    """

    every: int = 10
    minimum_score: float = 0.15
    minimum_match: float = 0.2
    same_person: float = 0.6
    timeout_frames: int = 15
    missed_finds: int = 3
    smoothing: Smoothing | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UsageError(f"Got every={self.every}; expected at least 1.")


@dataclass(slots=True, eq=False)
class _Track:
    track_id: int
    pose: Pose
    unseen_frames: int = 0
    missed_finds: int = 0
    velocity: npt.NDArray[np.float64] = dataclasses.field(default_factory=lambda: np.zeros(2))
    found_box: tuple[float, float, float, float] | None = None
    centre: npt.NDArray[np.float64] = dataclasses.field(default_factory=lambda: np.zeros(2))
    seen_frames: int = 0
    filter: SmoothState | None = None

    def box(self) -> tuple[float, float, float, float]:
        """Return where the person is now: as found in this frame, or else as it was moving."""
        if self.found_box is not None:
            return self.found_box
        x0, y0, x1, y1 = self.pose.box
        dx, dy = self.velocity
        return x0 + dx, y0 + dy, x1 + dx, y1 + dy

    def predicted(self) -> Pose:
        """Return the last pose moved to where the person should be now."""
        keypoints = self.pose.keypoints.copy()
        keypoints[:, :2] += self.velocity
        return Pose(keypoints, self.box(), self.pose.score, self.track_id)

    def see(self, pose: Pose) -> None:
        """Take the pose of this frame."""
        box = box_of_joints(pose)
        if self.unseen_frames == 0 and self.seen_frames:
            step = np.array(box).reshape(2, 2).mean(0) - self.centre
            # Half of the new step: one bad frame must not throw the next crop off the person.
            self.velocity = (self.velocity + step) / 2
        self.centre = np.array(box).reshape(2, 2).mean(0)
        self.pose = dataclasses.replace(pose, box=box, track_id=self.track_id)
        self.unseen_frames, self.found_box = 0, None
        self.seen_frames += 1

    def miss(self) -> None:
        """Go on for one frame without being seen, ever slower."""
        self.pose = self.predicted()
        self.velocity = self.velocity * _COAST
        self.unseen_frames += 1
        self.found_box = None


class PeopleTracker:
    """Keep the people of one video, frame by frame; each video needs a tracker of its own.

    Finder and estimator may be shared among the trackers of several threads.

    Args:
        options: Settings.
        sigmas: OKS constants, e.g. from the card of the pose network; COCO's when left out.
    """

    def __init__(
        self, options: TrackerOptions | None = None, sigmas: Sequence[float] | None = None
    ) -> None:
        self.options = options or TrackerOptions()
        self._stream: AbstractContextManager[None] = OneStream("A people tracker")
        self._sigmas = np.array(sigmas if sigmas is not None else _COCO_SIGMAS, np.float64)
        self.reset()

    def reset(self) -> None:
        """Forget everybody; identities start again at 0."""
        self._tracks: list[_Track] = []
        self._next_id = 0
        self._frame = 0

    @in_turn
    def update(
        self, frame_bgr: Frame, finder: Finder, estimator: Estimator | None, seconds: float = -1.0
    ) -> list[Pose]:
        """Take one frame; return the people seen in it, oldest first.

        Args:
            frame_bgr: uint8 (height, width, 3) BGR.
            finder: Finds people in whole frames, e.g. a `PeopleFinder`.
            estimator: Reads joints in boxes, e.g. a `PoseEstimator`; None takes the finder's
                joints, which then runs on each frame.
            seconds: Time of the frame for smoothing; 30 frames a second when left out.

        Returns:
            Poses with their `track_id`.
        """
        find = estimator is None or not self._tracks or self._frame % self.options.every == 0
        found = finder(frame_bgr) if find else []
        if estimator is None:
            return self.associate(found, seconds)
        if find:
            self._take_boxes(found)
        if self._tracks:
            boxes = np.array([t.box() for t in self._tracks], np.float64)
            poses = estimator(frame_bgr, boxes)
            for track, pose, taken in zip(self._tracks, poses, self._doubles(poses), strict=True):
                if taken or pose.score < self.options.minimum_score:
                    track.miss()
                else:
                    track.see(pose)
        return self._finish(seconds)

    @in_turn
    def associate(self, poses: Sequence[Pose], seconds: float = -1.0) -> list[Pose]:
        """Give identities to poses that something else found in the whole frame.

        Args:
            poses: All people of one frame.
            seconds: Time of the frame for smoothing.

        Returns:
            The poses that count as seen, with their `track_id`, oldest first.
        """
        pairs = self._match(poses)
        for row, column in pairs:
            self._tracks[row].see(poses[column])
        for row in set(range(len(self._tracks))) - {row for row, _ in pairs}:
            self._tracks[row].miss()
        for column in sorted(set(range(len(poses))) - {column for _, column in pairs}):
            if poses[column].score >= self.options.minimum_score:
                self._start(poses[column])
        return self._finish(seconds)

    def _match(self, poses: Sequence[Pose]) -> list[tuple[int, int]]:
        if not poses or not self._tracks:
            return []
        return assign(
            self._similarity([t.predicted() for t in self._tracks], poses),
            self.options.minimum_match,
        )

    def _similarity(self, first: Sequence[Pose], second: Sequence[Pose]) -> npt.NDArray[np.float64]:
        iou = box_iou(*(np.array([p.box for p in poses], np.float64) for poses in (first, second)))
        joints = first[0].keypoints.shape[0]
        if joints != second[0].keypoints.shape[0]:
            return iou
        sigmas = self._sigmas
        if len(sigmas) != joints:
            sigmas = np.full(joints, sigmas.mean())
        return (iou + keypoint_similarity(first, second, sigmas)) / 2

    def _take_boxes(self, found: Sequence[Pose]) -> None:
        """Correct the boxes of followed people by those found now, and start the new ones."""
        pairs = self._match(found)
        matched = {row for row, _ in pairs}
        for row, track in enumerate(self._tracks):
            track.missed_finds = 0 if row in matched else track.missed_finds + 1
        for row, column in pairs:
            self._tracks[row].found_box = found[column].box
        taken = {column for _, column in pairs}
        for column in sorted(set(range(len(found))) - taken):
            self._start(found[column])

    def _start(self, pose: Pose) -> None:
        self._tracks.append(
            _Track(
                self._next_id, dataclasses.replace(pose, track_id=self._next_id), found_box=pose.box
            )
        )
        self._next_id += 1

    def _doubles(self, poses: Sequence[Pose]) -> npt.NDArray[np.bool_]:
        """Say which new poses show a person that another track has already.

        Where people cross, two crops can lock on the one in front. The track whose pose agrees
        less with where it was going gives way and coasts; a track that has just begun always does.
        """
        lost = np.zeros(len(poses), bool)
        alike = self._similarity(poses, poses) >= self.options.same_person
        predicted = [t.predicted() for t in self._tracks]
        agreement = np.diag(self._similarity(predicted, poses)).copy()
        agreement[[t.seen_frames == 0 for t in self._tracks]] = -1.0
        taken: list[int] = []
        # Best first; among equals the older track, which comes first in the list.
        for row in np.argsort(-agreement, kind="stable"):
            lost[row] = any(alike[row, other] for other in taken)
            if not lost[row] and poses[row].score >= self.options.minimum_score:
                taken.append(int(row))
        return lost

    def _finish(self, seconds: float) -> list[Pose]:
        now = seconds if seconds >= 0 else self._frame / 30
        self._frame += 1
        options = self.options
        self._tracks = [
            t
            for t in self._tracks
            if t.unseen_frames <= options.timeout_frames and t.missed_finds < options.missed_finds
        ]
        seen = [t for t in self._tracks if t.unseen_frames == 0]
        if options.smoothing is None:
            return [t.pose for t in seen]
        return [self._smoothed(t, now, options.smoothing) for t in seen]

    def _smoothed(self, track: _Track, now: float, settings: Smoothing) -> Pose:
        x0, y0, x1, y1 = track.pose.box
        size = float(np.hypot(x1 - x0, y1 - y0))
        keypoints, track.filter = smooth(track.pose.keypoints, size, now, track.filter, settings)
        return dataclasses.replace(track.pose, keypoints=keypoints)


class SinglePerson:
    """Follow one person without a finder: crop around the previous pose; one object a video.

    The first crop, and each after the person is lost, is the whole frame.

    Args:
        minimum_score: A pose below counts as lost.
    """

    def __init__(self, minimum_score: float = 0.15) -> None:
        self.minimum_score = minimum_score
        self._stream: AbstractContextManager[None] = OneStream("A follower of one person")
        self._box: tuple[float, float, float, float] | None = None

    @in_turn
    def update(self, frame_bgr: Frame, estimator: Estimator) -> list[Pose]:
        """Take one frame; return the person, or nobody.

        Args:
            frame_bgr: uint8 (height, width, 3) BGR.
            estimator: Reads joints in boxes, e.g. a `PoseEstimator`.
        """
        whole = (0.0, 0.0, float(frame_bgr.shape[1]), float(frame_bgr.shape[0]))
        pose = estimator(frame_bgr, np.array([self._box or whole], np.float64))[0]
        if pose.score < self.minimum_score:
            self._box = None
            return []
        self._box = box_of_joints(pose)
        return [dataclasses.replace(pose, box=self._box, track_id=0)]
