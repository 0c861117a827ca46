"""The people of one source, from frame to frame: which boxes to read, and whose joints those are.

Reading joints lies between the two halves, so that one run of the network can read the people of
several sources.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from prunus.apps.io.frames import Frame, SourceInfo
from prunus.apps.pose.coco_results import Boxes

if TYPE_CHECKING:
    from prunus.apps.pose.coco import ImageId
    from prunus.apps.pose.options import PoseOptions
    from prunus.runtime.tasks.pose.card import KeypointPostprocess
    from prunus.runtime.tasks.pose.estimator import Pose
    from prunus.runtime.tasks.pose.tracking.background import BackgroundFinder

_LATE_MS = 300.0  # in which people walk out of the boxes in which they were found


class Follower:
    """Asks for joints in boxes, and makes people of the answer.

    Args:
        options: What to do.
        info: Of the source.
        post: Of the card of the network that reads joints.
        find: Finds people in a whole frame.

    Attributes:
        given: Boxes of each picture, instead of finding any.
        background: Finds beside everything else.
        find_ms: What finding took for the latest frame.
        waited_ms: How much of that the frame waited for.
    """

    def __init__(
        self,
        options: PoseOptions,
        info: SourceInfo,
        post: KeypointPostprocess,
        find: Callable[[Any], list[Pose]],
    ) -> None:
        from prunus.runtime.tasks.pose.smoothing import Smoothing
        from prunus.runtime.tasks.pose.tracking.finding import Finding
        from prunus.runtime.tasks.pose.tracking.single import SinglePerson
        from prunus.runtime.tasks.pose.tracking.tracker import PeopleTracker, TrackerOptions

        settings = TrackerOptions(
            finding=Finding(every=options.detect_every),
            smoothing=Smoothing() if options.smooth else None,
            most_people=options.max_people,
        )
        if options.conf is not None:
            settings = dataclasses.replace(settings, minimum_score=options.conf)
        self.least = settings.minimum_score
        self.given: Mapping[ImageId, Boxes] | None = None
        self.background: BackgroundFinder | None = None
        self.find_ms = self.waited_ms = self._search_ms = 0.0
        self._find_people = find
        self._conf, self._most = options.conf or 0.0, options.max_people
        self._tracker = PeopleTracker(
            settings, post.sigmas, limbs=post.limbs, flip_pairs=post.flip_pairs
        )
        self._single = SinglePerson() if options.single else None
        self._alone = info.still

    @property
    def people(self) -> int:
        """How many are followed."""
        return self._tracker.people

    def believe(self, conf: float) -> None:
        """Take another least score of a person, 0 to 1."""
        self._conf = conf
        self._tracker.options = dataclasses.replace(self._tracker.options, minimum_score=conf)

    def ask(self, frame: Frame, share: Callable[[int], int | None], every: int) -> npt.NDArray[Any]:
        """Find people if it is time to, and return the boxes in which joints are to be read.

        Args:
            frame: The next one of the source.
            share: How many of so many people to read at most, None for all.
            every: One frame in so many reads the same person; the finder rests longer accordingly.

        Returns:
            (people, 4) of x0, y0, x1, y1 in image pixels.
        """
        self.find_ms = self.waited_ms = 0.0
        image, now = frame.image, frame.seconds or 0.0
        if self.given is not None:
            corners, _ = self.given.get(frame.image_id, (np.zeros((0, 4)), None))
            return corners[: self._most]
        if self._single is not None:
            if self._alone:  # the person of another picture says nothing about this one
                self._single = type(self._single)()
            return self._single.crop(image)
        if self._alone:
            boxes = [p.box for p in self._find(image)[: self._most]]
            return np.array(boxes, np.float64).reshape(-1, 4)
        self._tracker.search.stretch = float(every)
        self._look(image, now)
        return self._tracker.crops(now, share(self._tracker.people))

    def answer(self, frame: Frame, poses: Sequence[Pose]) -> list[Pose]:
        """Return the people of the frame.

        Args:
            frame: That of `ask`.
            poses: What was read in its boxes.
        """
        if self.given is not None and not self._alone:
            return self._tracker.associate(self._kept(poses), frame.seconds or 0.0, frame.image)
        if self._single is not None:
            return self._single.read(poses[0])
        if self._alone:
            return self._kept(poses)
        return self._tracker.read(frame.image, poses, frame.seconds or 0.0)

    def _look(self, image: Any, now: float) -> None:
        """Look for people if it is time to."""
        tracker, background = self._tracker, self.background
        # An answer that is too late for people without a known motion finds them gone: wait for it.
        late = tracker.people == 0 and self._search_ms > _LATE_MS
        if background is None or (late and not background.busy):
            if tracker.wants(image, now):
                tracker.take(self._find(image), now, now, image)
            self.waited_ms = self.find_ms
            return
        answer = background.take()
        if answer is not None:
            self.find_ms = self._search_ms = answer.took_ms
            tracker.take(answer.people, answer.seconds, now, answer.frame)
        if not background.busy and tracker.wants(image, now):
            background.offer(image, now)

    def _kept(self, poses: Sequence[Pose]) -> list[Pose]:
        return [p for p in poses if p.score >= self._conf]

    def _find(self, image: Any) -> list[Pose]:
        start = time.perf_counter()
        found = self._find_people(image)
        self.find_ms += (time.perf_counter() - start) * 1000
        return found
