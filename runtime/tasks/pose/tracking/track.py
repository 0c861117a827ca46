"""One person over time: where, how fast, how old the joints are, what the clothes look like."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from prunus.runtime.tasks.pose.estimator import Pose
from prunus.runtime.tasks.pose.similarity import box_of_joints
from prunus.runtime.tasks.pose.smoothing import SmoothState
from prunus.runtime.tasks.pose.tracking.looks import Looks

Box = tuple[float, float, float, float]
Doubles = npt.NDArray[np.float64]

# Seconds after which a change of place and of speed is believed: alone, and all but hidden.
_PLACE_SECONDS = (0.05, 0.15)
_SPEED_SECONDS = (0.3, 1.0)
_HIDDEN = 0.3  # intersection over union with somebody else that is all but hidden
_COAST_SECONDS = 1.0  # a hidden person goes on for about as long, ever slower
_TRAIL = 32  # steps remembered, for a finder that answers late
_NEVER = -math.inf


def moved(pose: Pose, shift: Doubles) -> Pose:
    """Return a pose moved by x, y in pixels."""
    keypoints = pose.keypoints.copy()
    keypoints[:, :2] += shift.astype(np.float32)
    x0, y0, x1, y1 = pose.box
    dx, dy = float(shift[0]), float(shift[1])
    return dataclasses.replace(pose, keypoints=keypoints, box=(x0 + dx, y0 + dy, x1 + dx, y1 + dy))


def centre_of(box: Box) -> Doubles:
    """Return the middle of a box, x and y."""
    return np.array(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2))


@dataclass(slots=True, eq=False)
class Track:
    """What is known of one person.

    Attributes:
        pose: The last pose, where the person was at `seconds`.
        seconds: Time of that pose.
        track_id: Identity, -1 until it is confirmed.
        seen_s: When the person was last seen.
        read_s: When the joints were last read by the pose network.
        found_s: When the finder last agreed.
        missed_finds: How often it did not since then.
        sights: How often the person was seen.
        velocity: x, y in pixels per second.
        centre: Middle of the box, steadied.
        height: Of the person's box in pixels, steadied.
        found_box: Where the finder saw the person in this frame.
        looks: Colours of the clothes in clear views, NaN where none was.
        view: Those of the last pose.
        limbs: Longest length of each limb in heights, 0 before a view.
        filter: State of the smoothing.
    """

    pose: Pose
    seconds: float
    track_id: int = -1
    seen_s: float = _NEVER
    read_s: float = _NEVER
    found_s: float = _NEVER
    missed_finds: int = 0
    sights: int = 0
    velocity: Doubles = field(default_factory=lambda: np.zeros(2))
    centre: Doubles = field(default_factory=lambda: np.zeros(2))
    height: float = 0.0
    found_box: Box | None = None
    looks: Looks = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    view: Looks = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    limbs: Doubles | None = None
    filter: SmoothState | None = None
    trail: deque[tuple[float, Box]] = field(default_factory=lambda: deque(maxlen=_TRAIL))

    @property
    def seen(self) -> bool:
        """Whether the person is in view at the time of the last pose."""
        return self.seen_s == self.seconds

    def predicted(self, now: float) -> Pose:
        """Return the pose moved to where the person should be at a time."""
        shift = self.centre - centre_of(self.pose.box) if self.sights else np.zeros(2)
        return moved(self.pose, shift + self.velocity * self._steps(now))

    def _steps(self, now: float) -> float:
        """Return the seconds of full speed until `now`; a hidden person slows down."""
        elapsed = max(now - self.seconds, 0.0)
        if self.seen:
            return elapsed
        return _COAST_SECONDS * (1 - math.exp(-elapsed / _COAST_SECONDS))

    def crop(self, now: float) -> Box:
        """Return where to read the joints: as found in this frame, or else as it was moving."""
        return self.found_box if self.found_box is not None else self.predicted(now).box

    def box_at(self, when: float) -> Box:
        """Return the box at a time in the recent past."""
        before = [box for seconds, box in self.trail if seconds <= when]
        return before[-1] if before else self.pose.box

    def see(self, pose: Pose, now: float, crowding: float = 0.0) -> None:
        """Take the pose of this frame.

        Args:
            pose: Of this person, as far as we know.
            now: Time in seconds.
            crowding: Largest intersection over union with anybody else, 0 to 1.
        """
        box, elapsed = box_of_joints(pose), now - self.seconds
        middle = centre_of(box)
        if self.seen and self.sights and elapsed > 0:
            # A g-h filter: one bad frame must not throw the next crop off the person, and least of
            # all beside others, whose joints may have been taken for this person's.
            hidden = min(crowding / _HIDDEN, 1.0)
            place, speed = (
                1 - math.exp(-elapsed / (low + (high - low) * hidden))
                for low, high in (_PLACE_SECONDS, _SPEED_SECONDS)
            )
            off = middle - (self.centre + self.velocity * elapsed)
            self.centre = self.centre + self.velocity * elapsed + place * off
            speed = max(speed, 1 / self.sights) if not crowding else speed
            self.velocity = self.velocity + speed * off / elapsed
        else:
            self.centre = middle
        tall = box[3] - box[1]
        self.height = tall if not self.sights else 0.9 * self.height + 0.1 * tall
        self.pose = dataclasses.replace(pose, box=box, track_id=self.track_id)
        self.seconds = self.seen_s = self.read_s = now
        self.sights += 1
        self.found_box = None
        self.trail.append((now, box))

    def coast(self, now: float, *, seen: bool) -> None:
        """Go on to a time without new joints.

        Args:
            now: Time in seconds.
            seen: The person counts as in view: the joints are merely not read in each frame.
        """
        before = self.seen
        self.pose = self.predicted(now)
        self.centre = centre_of(self.pose.box)
        if not before:
            self.velocity = self.velocity * math.exp(-(now - self.seconds) / _COAST_SECONDS)
        self.seconds = now
        if seen and before:
            self.seen_s = now
        self.found_box = None
        self.trail.append((now, self.pose.box))

    def found(self, box: Box, when: float, now: float) -> None:
        """Take the finder's box, which may be of a moment ago."""
        shift = centre_of(self.predicted(now).box) - centre_of(self.box_at(when))
        if when >= now:
            shift = np.zeros(2)
        dx, dy = float(shift[0]), float(shift[1])
        self.found_box = (box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy)
        if not self.seen:  # whoever was hidden is where the finder says, not where motion ended
            self.pose = moved(self.pose, centre_of(self.found_box) - centre_of(self.pose.box))
            self.centre = centre_of(self.pose.box)
            self.seconds, self.velocity = now, self.velocity * 0.5
        self.found_s, self.missed_finds = now, 0
