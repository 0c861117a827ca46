"""Staged pipeline: capture and every stage in a thread of its own, results in the caller's.

A live source goes through newest-frame slots: a stage that is late finds the newest frame, and the
frames it missed are counted. A file goes through bounded queues and loses nothing. Every stage has
a clock. Whatever ends the run - the source, an exception, Ctrl-C, the caller leaving the loop -
the threads end, and what was finished before comes out in order.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import numpy as np

from prunus.runtime.pipeline.queue import END, Channel

_CLOCK_WINDOW = 2048  # samples kept per stage: bounded memory in a run that never ends
_JOIN_SECONDS = 5.0  # a camera that hangs in its driver must not keep the program from ending
CAPTURE = "capture"


@dataclass(frozen=True, slots=True)
class Stage:
    """One step: a name for the clocks, and a function from payload to payload."""

    name: str
    work: Callable[[Any], Any]


@dataclass(slots=True)
class Item:
    """One frame on its way.

    Attributes:
        index: Position in the source, from 0; gaps are frames that were dropped.
        captured_ns: `time.perf_counter_ns` when the source handed it over.
        payload: What the last stage made of it.
        stage_ms: Milliseconds of each stage so far, by name.
    """

    index: int
    captured_ns: int
    payload: Any
    stage_ms: dict[str, float] = field(default_factory=dict)

    @property
    def age_ms(self) -> float:
        """Milliseconds since capture; taken once the frame is drawn: glass to glass."""
        return (time.perf_counter_ns() - self.captured_ns) / 1e6


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Clock of one stage over its latest samples.

    Attributes:
        name: The stage.
        count: Items since the start.
        p50_ms: Median, 0 before the first item.
        p90_ms: 90th percentile, 0 before the first item.
    """

    name: str
    count: int
    p50_ms: float
    p90_ms: float


class _Clock:
    def __init__(self, name: str) -> None:
        self.name, self.count = name, 0
        self._recent: deque[float] = deque(maxlen=_CLOCK_WINDOW)

    def add(self, milliseconds: float) -> None:
        self._recent.append(milliseconds)
        self.count += 1

    def times(self) -> StageTimes:
        recent = list(self._recent) or [0.0]
        p50, p90 = np.percentile(recent, (50, 90))
        return StageTimes(self.name, self.count, float(p50), float(p90))


class Pipeline:
    """Run a source through stages; iterate it inside a `with` statement.

    The first Ctrl-C stops the capture: the frames in flight still come out, then the loop ends with
    KeyboardInterrupt. A second Ctrl-C interrupts at once. An exception in the source or in a stage
    is raised by the loop after the frames before it have come out.

    Args:
        source: Yields payloads; read in a thread of its own.
        stages: At least one step, each with a name of its own.
        live: True for a source that does not wait (camera, stream): frames may be dropped.
        depth: Frames that may wait between two stages of a source that does wait.
        replace: As for a `Channel`, told of payloads.

    Example:
        >>> with Pipeline(range(3), [Stage("double", lambda n: 2 * n)], live=False) as pipeline:
        ...     [item.payload for item in pipeline]
        [0, 2, 4]
    """

    def __init__(
        self,
        source: Iterable[Any],
        stages: Sequence[Stage],
        *,
        live: bool,
        depth: int = 2,
        replace: Callable[[Any, Any], int] = lambda old, new: 1,
    ) -> None:
        names = [CAPTURE, *(stage.name for stage in stages)]
        if not stages or len(set(names)) != len(names) or depth < 1:
            raise ValueError(f"need stages with different names and a depth; got {names}, {depth}")
        self.live = live
        self._source, self._stages = source, tuple(stages)

        def replaced(old: Item, new: Item) -> int:
            return replace(old.payload, new.payload)

        self._channels = [Channel(1 if live else depth, live, replaced) for _ in names]
        self._clocks = {name: _Clock(name) for name in names}
        self._latency = _Clock("glass_to_glass" if live else "in_flight")
        self._threads: list[threading.Thread] = []
        self._first_error: BaseException | None = None
        self._error_lock = threading.Lock()
        self._interrupted = False
        self._old_handler: Any = None

    def __enter__(self) -> Pipeline:
        self._catch_interrupt()
        self._threads = [threading.Thread(target=self._capture, name=CAPTURE, daemon=True)]
        for index, stage in enumerate(self._stages):
            work = threading.Thread(
                target=self._work, args=(index, stage), name=stage.name, daemon=True
            )
            self._threads.append(work)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for channel in self._channels:
            channel.abort()
        until = time.monotonic() + _JOIN_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        if self._old_handler is not None:
            signal.signal(signal.SIGINT, self._old_handler)
            self._old_handler = None

    def __iter__(self) -> Iterator[Item]:
        """Yield finished items in order; raise the first exception of the source or a stage."""
        if not self._threads:
            raise RuntimeError("a Pipeline is iterated inside its `with` statement")
        while (item := self._channels[-1].get()) is not END:
            self._latency.add(item.age_ms)
            yield item
        if self._first_error is not None:
            raise self._first_error
        if self._interrupted:
            raise KeyboardInterrupt

    @property
    def dropped(self) -> int:
        """Frames that a newer one replaced; always 0 for a source that waits."""
        return sum(channel.dropped for channel in self._channels)

    def times(self) -> tuple[StageTimes, ...]:
        """Return the clocks: capture, the stages in order, and from capture to the caller."""
        return tuple(clock.times() for clock in (*self._clocks.values(), self._latency))

    def stop(self) -> None:
        """Read no more from the source; the frames in flight still come out."""
        self._channels[0].close()

    def _capture(self) -> None:
        clock, out = self._clocks[CAPTURE], self._channels[0]
        try:
            start = time.perf_counter_ns()
            for index, payload in enumerate(self._source):
                now = time.perf_counter_ns()
                taken = (now - start) / 1e6
                clock.add(taken)
                if not out.put(Item(index, now, payload, {CAPTURE: taken})):
                    break
                start = time.perf_counter_ns()
        except BaseException as error:  # whatever it is, the caller must see it
            self._record(error)
        finally:
            out.close()

    def _work(self, index: int, stage: Stage) -> None:
        came, out, clock = (
            self._channels[index],
            self._channels[index + 1],
            self._clocks[stage.name],
        )
        try:
            while (item := came.get()) is not END:
                start = time.perf_counter_ns()
                item.payload = stage.work(item.payload)
                taken = (time.perf_counter_ns() - start) / 1e6
                clock.add(taken)
                item.stage_ms[stage.name] = taken
                if not out.put(item):
                    break
        except BaseException as error:
            self._record(error)
        finally:
            # Nobody reads what lies before this stage any more, so those before it must end.
            for channel in self._channels[: index + 1]:
                channel.abort()
            out.close()

    def _record(self, error: BaseException) -> None:
        with self._error_lock:
            self._first_error = self._first_error or error

    def _catch_interrupt(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        old = signal.getsignal(signal.SIGINT)
        # Nothing to do for a program in the background (ignored), or with a handler of its own.
        if old is signal.default_int_handler:
            self._old_handler = old
            signal.signal(signal.SIGINT, self._on_interrupt)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True
        self.stop()
