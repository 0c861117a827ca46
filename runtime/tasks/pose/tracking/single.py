"""One person without a finder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import numpy.typing as npt

from prunus.runtime.tasks.calls import OneStream, in_turn
from prunus.runtime.tasks.pose.estimator import Pose
from prunus.runtime.tasks.pose.similarity import box_of_joints

Frame = npt.NDArray[np.uint8]
Estimator = Callable[[Frame, npt.NDArray[np.float64]], list[Pose]]


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
        return self.read(estimator(frame_bgr, self.crop(frame_bgr))[0])

    @in_turn
    def crop(self, frame_bgr: Frame) -> npt.NDArray[np.float64]:
        """Begin what `update` does: return the box (1, 4) in which joints are to be read."""
        whole = (0.0, 0.0, float(frame_bgr.shape[1]), float(frame_bgr.shape[0]))
        return np.array([self._box or whole], np.float64)

    @in_turn
    def read(self, pose: Pose) -> list[Pose]:
        """End what `update` does, with what an estimator read in the box of `crop`."""
        if pose.score < self.minimum_score:
            self._box = None
            return []
        self._box = box_of_joints(pose)
        return [dataclasses.replace(pose, box=self._box, track_id=0)]
