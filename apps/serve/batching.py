"""Requests of many callers, one after another or side by side in the model's batch."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from prunus.api import Predictor, Result
from prunus.runtime.errors import HostError
from prunus.runtime.protocols import Closable


@dataclass(slots=True)
class _Job:
    data: Any
    items: int
    future: Future[Result] = field(default_factory=Future)


class Batcher(Closable):
    """Run a model in one thread on what any number of threads submit, in their order.

    A run takes as many submitted inputs as the model's batch holds. An input that makes a run
    fail, fails alone: the others of that run are answered.

    Args:
        model: What answers; stays open.
        wait_s: Seconds that the first input of a run waits for others, while there is room.
        ran: Told how many inputs each run held.
    """

    def __init__(
        self, model: Predictor, wait_s: float = 0.0, ran: Callable[[int], None] | None = None
    ) -> None:
        self._model, self._wait_s, self._ran = model, wait_s, ran
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="prunus-serve", daemon=True)
        self._thread.start()

    def submit(self, data: Any) -> Future[Result]:
        """Return the result to come.

        Raises:
            TensorError: the input does not fit.
            HostError: the server is ending.
        """
        job = _Job(data, self._model.items(data))
        with self._changed:
            if self._closed:
                raise HostError("The server is ending.", "Ask again when it is back.")
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Answer what was submitted and end; safe to call twice."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while group := self._next():
            if group := [job for job in group if job.future.set_running_or_notify_cancel()]:
                self._answer(group)

    def _next(self) -> list[_Job]:
        """Return the inputs of the next run; none when this is the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            if self._model.batch > 1 and self._jobs:
                until = time.monotonic() + self._wait_s
                while not self._closed and sum(j.items for j in self._jobs) < self._model.batch:
                    if not self._changed.wait(max(0.0, until - time.monotonic())):
                        break
            group: list[_Job] = []
            free = self._model.batch
            while self._jobs and (not group or self._jobs[0].items <= free):
                group.append(self._jobs.popleft())
                free -= group[-1].items
            return group

    def _answer(self, group: list[_Job]) -> None:
        found = answers(self._model, [job.data for job in group], self._ran)
        for job, answer in zip(group, found, strict=True):
            if isinstance(answer, Exception):
                job.future.set_exception(answer)
            else:
                job.future.set_result(answer)


def answers(
    model: Predictor, inputs: Sequence[Any], ran: Callable[[int], None] | None = None
) -> list[Result | Exception]:
    """Return the result of each input, from one run; one that makes the run fail, fails alone.

    Args:
        model: One whose batch holds them all.
        inputs: At least one.
        ran: Told how many inputs each run held.
    """
    try:
        results = model.together(inputs)
    except Exception as error:  # whatever it is belongs to the caller, not to this thread
        if len(inputs) == 1:
            return [error]
        return [answers(model, [one], ran)[0] for one in inputs]
    if ran is not None:
        ran(len(inputs))
    return list(results)
