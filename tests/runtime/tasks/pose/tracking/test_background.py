"""The finder in a thread of its own."""

import threading

import numpy as np
import pytest

from prunus.runtime.tasks.pose.estimator import Pose
from prunus.runtime.tasks.pose.tracking.background import BackgroundFinder

FRAME = np.zeros((8, 8, 3), np.uint8)


def answer(finder):
    for _ in range(10_000):
        if (found := finder.take()) is not None:
            return found
        threading.Event().wait(0.001)
    raise AssertionError("no answer")


def test_an_answer_carries_its_frame_and_comes_once():
    go, seen = threading.Event(), []

    def find(frame):
        go.wait(10)
        seen.append(int(frame.max()))
        return [Pose(np.zeros((1, 3), np.float32), (0, 0, 1, 1), 0.5)]

    finder, frame = BackgroundFinder(find), FRAME.copy()
    finder.offer(frame, 1.5)
    frame[:] = 255  # somebody draws on it meanwhile
    assert finder.busy and finder.take() is None
    go.set()
    found = answer(finder)
    assert (found.seconds, len(found.people), seen) == (1.5, 1, [0])
    assert found.took_ms > 0
    assert finder.take() is None and not finder.busy
    finder.close()
    assert "finder" not in {t.name for t in threading.enumerate()}


def test_what_the_finder_raises_is_raised_where_the_answer_is_taken():
    def find(frame):
        raise ValueError("no")

    finder = BackgroundFinder(find)
    finder.offer(FRAME, 0.0)
    with pytest.raises(ValueError, match="no"):
        answer(finder)
    assert not finder.busy
    finder.close()
    finder.close()
