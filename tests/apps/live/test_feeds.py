"""Several sources in one run: rounds, what is dropped, and sources that end or break."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from itertools import chain

import numpy as np
import pytest

from prunus.apps.io.frames import Frame, SourceInfo
from prunus.apps.io.sinks.registry import Stop
from prunus.apps.live import feeds as module
from prunus.apps.live.feeds import Feeds, feed_names
from prunus.runtime.errors import SourceError, UsageError

IMAGE = np.zeros((2, 2, 3), np.uint8)


class Listed:
    """A source of so many frames, which may break behind the last one."""

    def __init__(self, count, live=False, breaks="", go=None):
        self.info = SourceInfo("camera" if live else "video", 2, 2, 10.0, count, live)
        self.warnings, self._breaks, self._go = [], breaks, go
        self.closed = threading.Event()

    def __iter__(self):
        for index in range(self.info.frames):
            if self._go is not None:
                self._go.acquire()
            yield Frame(index, IMAGE, "", 0, seconds=index / 10)
        if self._breaks:
            raise SourceError(self._breaks, "Plug it in.")
        if self.info.live:
            self.closed.wait(60)

    def close(self):
        self.closed.set()


@pytest.fixture
def opened(monkeypatch):
    """Open sources by name."""
    with ExitStack() as stack:

        def run(**sources):
            def open_source(uri, reconnect):
                if isinstance(sources[uri], Exception):
                    raise sources[uri]
                return sources[uri]

            monkeypatch.setattr(module, "open_source", open_source)
            return Feeds(tuple(sources), stack, quiet=True)

        yield run


def indices(rounds):
    return [{number: frame.index for number, frame in made.items()} for made in rounds]


def test_files_give_a_frame_each_until_the_last_one_ends(opened):
    feeds = opened(a=Listed(3), b=Listed(5))
    assert indices(feeds.rounds(lambda f: f, 2)) == [{0: 0, 1: 0}, {0: 2, 1: 2}, {1: 4}]
    assert feeds.expected(2) == 3
    assert opened(a=Listed(3), b=Listed(0)).expected(1) == 0  # nobody knows


def test_a_source_that_breaks_leaves_the_others_and_is_told(opened, capsys):
    feeds = opened(a=Listed(1, breaks="The cable is out."), b=Listed(3))
    feeds._quiet = False
    seen = []
    for made in feeds.rounds(lambda f: f, 1):
        feeds.deliver(made, lambda feed, frame: seen.append((feed.name, frame.index)), None)
    assert seen == [("a", 0), ("b", 0), ("b", 1), ("b", 2)]
    assert capsys.readouterr().err == "a: The cable is out.\n"
    assert feeds.warnings() == ("a: The cable is out",)
    first, second = feeds.rows(lambda feed: {"seen": feed.frames})
    assert (first.frames, first.warnings, first.facts) == (1, ("The cable is out",), {"seen": 1})
    assert (second.frames, second.warnings) == (3, ())


def test_one_source_alone_breaks_the_run(opened):
    feeds = opened(a=Listed(1, breaks="The cable is out."))
    rounds = feeds.rounds(lambda f: f, 1)
    assert next(rounds)[0].index == 0
    with pytest.raises(SourceError, match="cable"):
        next(rounds)
    assert feeds.rows(lambda feed: {}) == ()


def test_a_source_that_cannot_be_opened_leaves_the_others(opened):
    feeds = opened(a=SourceError("No such camera.", ""), b=Listed(1))
    assert feeds.names == ["b"] and feeds.warnings() == ("a: No such camera",)
    assert [row.name for row in feeds.rows(lambda feed: {})] == ["a", "b"]
    assert not feeds.alone  # its entries still have a name
    with pytest.raises(SourceError, match="Neither"):
        opened(a=SourceError("No such camera.", ""), b=SourceError("Neither is this.", ""))


def test_files_and_live_sources_do_not_mix(opened):
    with pytest.raises(UsageError, match="Got a, which waits, and b, which does not"):
        opened(b=Listed(1, live=True), a=Listed(1))


def test_a_round_takes_over_what_has_no_newer_frame(opened):
    feeds = opened(a=Listed(1), b=Listed(1), c=Listed(1))
    new = {0: "a2", 2: "c1"}
    assert feeds.replace({0: "a1", 1: "b1"}, new) == 1
    assert new == {0: "a2", 1: "b1", 2: "c1"}
    assert [feed.dropped for feed in feeds.open] == [1, 0, 0] and feeds.dropped == 1


def test_live_sources_give_what_is_newest_of_each(opened):
    go = threading.Semaphore(0)
    feeds = opened(a=Listed(5, live=True), b=Listed(1, live=True, go=go))
    rounds = feeds.rounds(lambda f: f, 1)
    seen = [next(rounds)]
    while 4 not in [made[0].index for made in seen if 0 in made]:
        seen.append(next(rounds))
    assert [n for made in seen for n in made] == [0] * len(seen)  # b has nothing yet
    assert len(seen) + feeds.open[0].dropped == 5
    go.release()
    assert indices([next(rounds)]) == [{1: 0}]
    for feed in feeds.open:
        feed.source.close()
    assert list(rounds) == []


def test_a_live_source_that_breaks_leaves_the_others(opened):
    last = threading.Semaphore(0)
    feeds = opened(a=Listed(1, live=True, breaks="Gone."), b=Listed(1, live=True, go=last))
    rounds = feeds.rounds(lambda f: f, 1)
    assert 0 in next(rounds)
    last.release()
    assert 1 in next(rounds)
    feeds.open[1].source.close()
    assert list(rounds) == [] and feeds.warnings() == ("a: Gone",)


def test_a_fault_of_the_program_is_not_taken_for_a_broken_source(opened):
    feeds = opened(a=Listed(1, live=True), b=Listed(1, live=True))
    with pytest.raises(ZeroDivisionError):
        list(feeds.rounds(lambda f: 1 // 0, 1))


class Taking:
    """Outputs that take some frames, then want no more."""

    def __init__(self, most):
        self.left, self.finished, self.written = most, 0, ("out",)

    def write(self, work):
        self.left -= 1
        if self.left < 0:
            raise Stop

    def finish(self):
        self.finished += 1
        return ()


def test_each_source_has_its_limit_its_end_and_its_outputs(opened):
    feeds = opened(a=Listed(2), b=Listed(9), c=Listed(9))
    for feed, most in zip(feeds.open, (9, 9, 3), strict=True):
        feed.outputs = Taking(most)
    rounds, finished = feeds.rounds(lambda f: f, 1), []
    first = next(rounds)
    feeds.live = True  # of files it is the loop that counts
    for made in chain([first], rounds):
        feeds.deliver(made, lambda feed, frame: feed.outputs.write(frame), 5)
        finished.append([feed.outputs.finished for feed in feeds.open])
    assert finished[1] == [0, 0, 0] and finished[2] == [1, 0, 0]  # completed once it had ended
    assert 9 - feeds.open[1].outputs.left == 5  # the limit
    assert feeds.open[2].stopped and feeds.open[2].outputs.left == -1
    feeds.finish()
    assert [feed.outputs.finished for feed in feeds.open] == [1, 1, 1]


def test_the_run_ends_when_nobody_wants_more_of_any(opened):
    feeds = opened(a=Listed(9), b=Listed(9))
    for feed, most in zip(feeds.open, (0, 1), strict=True):
        feed.outputs = Taking(most)
    rounds = feeds.rounds(lambda f: f, 1)
    feeds.deliver(next(rounds), lambda feed, frame: feed.outputs.write(frame), None)
    with pytest.raises(Stop):
        feeds.deliver(next(rounds), lambda feed, frame: feed.outputs.write(frame), None)


def test_outputs_that_fail_are_told_by_source(opened):
    feeds = opened(a=Listed(1), b=Listed(1))

    def broken():
        raise SourceError("The disk is full.", "")

    feeds.open[0].outputs.finish = broken
    feeds.finish()
    assert feeds.warnings() == ("a: The disk is full",)


def test_a_pipe_that_all_share_and_nobody_reads_is_no_fault(opened):
    feeds = opened(a=Listed(1), b=Listed(1))

    def gone():
        raise BrokenPipeError

    feeds.open[0].outputs.finish = gone
    feeds.finish()
    feeds = opened(a=Listed(1), b=Listed(1))
    for feed in feeds.open:
        feed.outputs.finish = gone
    with pytest.raises(BrokenPipeError):
        feeds.finish()


@pytest.mark.parametrize(
    ("uris", "names"),
    [
        (("0", "/dev/video1"), ["camera-0", "video1"]),
        (("http://me:secret@10.0.0.7:80/mjpg?key=secret",), ["10.0.0.7-80-mjpg"]),
        (("synthetic:640x480@25*9", "x/.mp4"), ["synthetic-640x480-25-9", "mp4"]),
        (("a.b.mp4", "a.b.avi", "a.b-2.mp4"), ["a.b", "a.b-2", "a.b-2-2"]),
    ],
)
def test_names_are_short_unique_and_without_secrets(uris, names):
    assert feed_names(uris) == names
