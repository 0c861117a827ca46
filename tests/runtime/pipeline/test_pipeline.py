"""The staged pipeline under random schedules, failures, Ctrl-C and early exits."""

import os
import signal
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.runtime.pipeline.pipeline import Pipeline, Stage

NAMES = ("preprocess", "infer", "postprocess", "draw")


def alive() -> set[str]:
    return {t.name for t in threading.enumerate() if t.name in ("capture", *NAMES)}


class BoomError(Exception):
    """A planted failure."""


def stage(name, step, switches=(), fails=(), index_of=lambda p: p[0]):
    """Append the step to the trail; give way to other threads or fail at the given items."""

    def work(payload):
        if index_of(payload) in fails:
            raise BoomError(name, index_of(payload))
        if index_of(payload) in switches:
            time.sleep(0)  # gives the interpreter to another thread: a different interleaving
            time.sleep(0.0002)
        return (*payload, step)

    return Stage(name, work)


schedules = st.lists(st.sets(st.integers(0, 29)), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(count=st.integers(0, 30), switches=schedules, depth=st.integers(1, 3))
def test_lossless_yields_everything_in_order(count, switches, depth) -> None:
    stages = [stage(n, i, s) for i, (n, s) in enumerate(zip(NAMES, switches, strict=False))]
    source = ((n,) for n in range(count))
    with Pipeline(source, stages, live=False, depth=depth) as pipeline:
        items = list(pipeline)
    trail = tuple(range(len(stages)))
    assert [item.payload for item in items] == [(n, *trail) for n in range(count)]
    assert [item.index for item in items] == list(range(count))
    assert pipeline.dropped == 0
    assert [t.count for t in pipeline.times()] == [count] * (len(stages) + 2)
    assert all(set(i.stage_ms) == {"capture", *(s.name for s in stages)} for i in items)
    assert not alive()


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 30), switches=schedules)
def test_live_keeps_order_counts_drops_and_ends_with_the_newest(count, switches) -> None:
    stages = [stage(n, i, s) for i, (n, s) in enumerate(zip(NAMES, switches, strict=False))]
    with Pipeline(((n,) for n in range(count)), stages, live=True) as pipeline:
        indices = [item.index for item in pipeline]
    assert indices == sorted(set(indices))
    assert len(indices) + pipeline.dropped == count
    assert indices[-1] == count - 1, "nothing is newer than the last frame, so it is never dropped"
    assert not alive()


@settings(max_examples=40, deadline=None)
@given(
    fails=st.dictionaries(st.integers(0, 3), st.sets(st.integers(0, 20), min_size=1), min_size=1),
    switches=schedules,
)
def test_failure_comes_after_the_frames_before_it(fails, switches) -> None:
    padded = [*switches, *[set()] * 4][:4]
    stages = [stage(n, i, padded[i], fails.get(i, ())) for i, n in enumerate(NAMES)]
    received = []
    with (
        pytest.raises(BoomError) as caught,
        Pipeline(((n,) for n in range(60)), stages, live=False) as p,
    ):
        for item in p:
            received.append(item.index)
    first_bad = min(min(indices) for indices in fails.values())
    assert received == list(range(first_bad))
    name, index = caught.value.args
    assert index in fails[NAMES.index(name)]
    assert not alive()


@pytest.mark.parametrize("live", [False, True])
def test_failing_source(live) -> None:
    def source():
        yield (0,)
        raise OSError("the camera is gone")

    with (
        pytest.raises(OSError, match="camera is gone"),
        Pipeline(source(), [stage("infer", 0)], live=live) as pipeline,
    ):
        assert [item.index for item in pipeline] == [0]
    assert not alive()


def test_slow_stage_on_a_live_source_sees_the_newest_frame() -> None:
    release, first = threading.Event(), threading.Event()
    produced = threading.Event()

    def source():
        yield 0
        first.wait(5)  # the stage holds frame 0
        yield from range(1, 10)
        produced.set()

    def slow(payload):
        first.set()
        release.wait(5)
        return payload

    with Pipeline(source(), [Stage("infer", slow)], live=True) as pipeline:
        assert produced.wait(5)
        release.set()
        indices = [item.index for item in pipeline]
    # Frame 0 itself may be replaced on its way out, when this thread comes for it too late.
    assert indices in ([0, 9], [9])
    assert pipeline.dropped == 10 - len(indices)


def test_full_lossless_queue_makes_the_source_wait() -> None:
    read, gate = [], threading.Event()

    def source():
        for n in range(50):
            read.append(n)
            yield n

    def wait(payload):
        gate.wait(5)
        return payload

    with Pipeline(source(), [Stage("infer", wait)], live=False, depth=2) as pipeline:
        while len(read) < 4:
            gate.wait(0.001)
        gate.wait(0.02)
        assert len(read) == 4, "one in the stage, two waiting, one in hand"
        gate.set()
        assert len(list(pipeline)) == 50


def test_leaving_the_loop_ends_the_threads() -> None:
    with Pipeline(iter(int, 1), [Stage("infer", abs)], live=False) as pipeline:
        for item in pipeline:
            if item.index == 3:
                break
    assert not alive()


def test_caller_exception_passes_through() -> None:
    with (
        pytest.raises(BoomError),
        Pipeline(iter(int, 1), [Stage("infer", abs)], live=False) as pipeline,
    ):
        for _ in pipeline:
            raise BoomError
    assert not alive()


def test_interrupt_finishes_what_is_in_flight() -> None:
    before = signal.getsignal(signal.SIGINT)
    received = []
    with (
        pytest.raises(KeyboardInterrupt),
        Pipeline(
            iter(int, 1), [Stage("infer", lambda p: p), Stage("draw", lambda p: p)], live=False
        ) as pipeline,
    ):
        for item in pipeline:
            received.append(item.index)
            if item.index == 5:
                os.kill(os.getpid(), signal.SIGINT)
    assert received == list(range(len(received)))
    assert 6 <= len(received) <= 16, "frames in flight come out, and no others"
    assert signal.getsignal(signal.SIGINT) is before
    assert not alive()


def test_interrupt_with_a_source_that_hangs() -> None:
    hang = threading.Event()

    def source():
        yield 0
        hang.wait(20)
        yield 1

    received = []
    start = time.monotonic()
    pipeline = Pipeline(source(), [Stage("infer", lambda p: p)], live=True)
    with pytest.raises(KeyboardInterrupt), pipeline:
        for item in pipeline:
            received.append(item.index)
            os.kill(os.getpid(), signal.SIGINT)
            threading.Timer(0.05, hang.set).start()
    assert received == [0]
    assert time.monotonic() - start < 5


def test_second_interrupt_is_immediate() -> None:
    received = []
    with (
        pytest.raises(KeyboardInterrupt),
        Pipeline(iter(int, 1), [Stage("infer", lambda p: p)], live=False) as pipeline,
    ):
        for item in pipeline:
            received.append(item.index)
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
    assert received == [0]
    assert not alive()


def test_interrupt_is_left_alone_outside_the_main_thread() -> None:
    found = []

    def run():
        with Pipeline(range(3), [Stage("infer", lambda p: p)], live=False) as pipeline:
            found.extend(item.payload for item in pipeline)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(5)
    assert found == [0, 1, 2]


def test_clocks_measure_their_own_stage() -> None:
    def slow(payload):
        end = time.perf_counter() + 0.004
        while time.perf_counter() < end:
            pass
        return payload

    stages = [Stage("infer", slow), Stage("draw", lambda p: p)]
    with Pipeline(range(8), stages, live=False) as pipeline:
        ages = [item.age_ms for item in pipeline]
    times = {t.name: t for t in pipeline.times()}
    assert list(times) == ["capture", "infer", "draw", "in_flight"]
    assert times["infer"].p50_ms >= 4.0
    assert times["infer"].p90_ms >= times["infer"].p50_ms
    assert times["draw"].p50_ms < times["infer"].p50_ms
    assert min(ages) >= 4.0


@pytest.mark.parametrize(
    ("stages", "depth"),
    [
        ([], 1),
        ([Stage("a", abs), Stage("a", abs)], 1),
        ([Stage("capture", abs)], 1),
        ([Stage("a", abs)], 0),
    ],
)
def test_nonsense_is_refused(stages, depth) -> None:
    with pytest.raises(ValueError, match="stages"):
        Pipeline([], stages, live=False, depth=depth)


def test_iterating_outside_the_with_statement() -> None:
    with pytest.raises(RuntimeError, match="with"):
        next(iter(Pipeline([1], [Stage("a", abs)], live=False)))


def test_what_replaces_an_item_may_take_over_a_part_of_it() -> None:
    began, ahead = threading.Event(), threading.Event()

    def source():
        yield {"a": 0}
        began.wait(10)
        yield {"a": 1}
        yield {"b": 1}
        yield {"a": 2}
        ahead.set()

    def work(payload):
        if payload == {"a": 0}:
            began.set()
            ahead.wait(10)
        return payload

    def replace(old, new):
        lost = len(old.keys() & new.keys())
        new |= {key: value for key, value in old.items() if key not in new}
        return lost

    with Pipeline(source(), [Stage("slow", work)], live=True, replace=replace) as pipeline:
        items = [item.payload for item in pipeline]
    # The first one may still wait to be taken by the loop, which then gets the second with it.
    merged = {key: value for item in items for key, value in item.items()}
    assert merged == {"a": 2, "b": 1} and 1 <= len(items) <= 2
    assert pipeline.dropped == (1 if len(items) == 2 else 2)
