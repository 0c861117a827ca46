"""A source that comes back: what its connections had to say is told once."""

from __future__ import annotations

import contextlib

import numpy as np

from prunus.apps.io.frames import Frame, SourceInfo
from prunus.apps.io.sources.reconnect import ReconnectingSource
from prunus.runtime.errors import SourceError

IMAGE = np.zeros((2, 2, 3), np.uint8)


class Connection:
    """Gives two frames and skips some pictures; then it breaks, or ends."""

    info = SourceInfo("stream", 2, 2, 25.0, 0, live=True)

    def __init__(self, skipped, breaks=True):
        self.warnings, self._skipped, self._breaks = [], skipped, breaks

    def __iter__(self):
        yield Frame(0, IMAGE, "", 0)
        self.warnings += [f"{self._skipped} damaged pictures were skipped", "The clock is wrong"]
        yield Frame(1, IMAGE, "", 0)
        if self._breaks:
            raise SourceError("It broke.")

    def close(self):
        """Nothing is open."""


def test_pictures_that_all_connections_skipped_are_one_number():
    again = [Connection(3), Connection(3, breaks=False)]
    source = ReconnectingSource(Connection(10), lambda: again.pop(0), "it", first_wait=0.001)
    with contextlib.closing(source):
        frames = iter(source)
        assert [next(frames).index for _ in range(2)] == [0, 1]
        assert source.warnings == ["10 damaged pictures were skipped", "The clock is wrong"]
        assert [frame.index for frame in frames] == [2, 3, 4, 5]
    *told, gaps = source.warnings
    assert told == ["16 damaged pictures were skipped", "The clock is wrong"]
    assert gaps.startswith("it was interrupted 2 times")


def test_while_it_is_away_nothing_is_counted_twice():
    seen = []

    def reopen():
        seen.append(source.warnings)
        return Connection(1, breaks=False)

    source = ReconnectingSource(Connection(10), reopen, "it", first_wait=0.001)
    with contextlib.closing(source):
        assert len(list(source)) == 4
    assert seen == [["10 damaged pictures were skipped", "The clock is wrong"]]
