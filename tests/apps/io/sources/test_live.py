"""Live frames: stamped when they come, not when somebody asks for them."""

import contextlib
import threading
import time

import numpy as np
import pytest

from prunus.apps.io.frames import Frame, SourceInfo
from prunus.apps.io.sources.live import LiveSource
from prunus.runtime.errors import SourceError

BLACK = np.zeros((4, 4, 3), np.uint8)


class _Camera:
    """Gives frames captured at given seconds; then waits, ends or breaks off."""

    def __init__(self, seconds, error: str = "") -> None:
        self.info = SourceInfo("camera", 4, 4, 25.0, 0, live=True)
        self.warnings = ["a warning"]
        self.seconds, self.error = seconds, error
        self.read, self.ended = threading.Event(), threading.Event()

    def __iter__(self):
        for k, second in enumerate(self.seconds):
            yield Frame(k, BLACK, "", round(second * 1e9))
        self.read.set()
        if self.error:
            raise SourceError(self.error)

    def close(self) -> None:
        self.ended.set()


def test_times_are_those_of_the_capture_whatever_rate_was_told() -> None:
    now = time.perf_counter()
    with contextlib.closing(LiveSource(_Camera([now + k / 5 for k in range(8)]))) as source:
        times = [f.seconds for f in source]
    np.testing.assert_allclose(times, np.arange(8) / 5, atol=1e-6)
    assert source.warnings == ["a warning"]


def test_frames_of_one_burst_keep_their_order() -> None:
    now = time.perf_counter()
    with contextlib.closing(LiveSource(_Camera([now] * 4))) as source:
        times = [f.seconds for f in source]
    assert (np.diff(times) > 0).all()


def test_what_came_while_a_model_was_opened_is_left_out() -> None:
    now = time.perf_counter()
    camera = _Camera([now - 9, now - 3, now - 1, now + 1, now + 1.2])
    source = LiveSource(camera)
    assert camera.read.wait(10)
    assert [round(f.seconds, 3) for f in source] == [0.0, 0.2]


def test_an_error_of_the_source_comes_behind_its_frames() -> None:
    now = time.perf_counter()
    source = LiveSource(_Camera([now, now + 1], "gone"))
    frames = iter(source)
    assert next(frames).seconds == 0.0 and next(frames).seconds == 1.0
    with pytest.raises(SourceError, match="gone"):
        next(frames)


def test_closing_ends_the_iteration_and_the_source() -> None:
    camera = _Camera([time.perf_counter() + k for k in range(3)])
    source = LiveSource(camera)
    frames = iter(source)
    next(frames)
    source.close()
    assert list(frames) == [] and camera.ended.is_set()
