"""A served model under load: latency at offered rates, and the knee beyond which it only waits.

Requests come as they would from many callers who do not know of each other: by a Poisson process
of a given rate, whether earlier ones are answered or not. A request's latency runs from the moment
at which it was due, so that a server that falls behind is not spared those that it held up
("coordinated omission").
"""

from __future__ import annotations

import http.client
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from prunus.apps.common.tables import plain_table
from prunus.runtime.errors import SourceError, UsageError
from prunus.runtime.http_client import NETWORK_ERRORS
from prunus.runtime.json_text import json_text
from prunus.runtime.limits import BODY_S, PICTURE_BYTES

if TYPE_CHECKING:
    from prunus.runtime.progress import Progress

SHARES = (0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.2)  # of what busy callers get
KEPT, SLOWER = 0.95, 3.0
FURTHER, MOST_RATES = 1.25, 20
Floats = npt.NDArray[np.float64]
Ask = Callable[[], str]


@dataclass(frozen=True, slots=True)
class Load:
    """What happened at one rate.

    Attributes:
        offered: Requests per second that came.
        answered: Answers per second, of those with status 200.
        p50_ms: Median latency of these; NaN without any.
        p99_ms: 99th percentile (the largest of fewer than 100).
        refused: Status, or kind of the failure -> how many.
    """

    offered: float
    answered: float
    p50_ms: float
    p99_ms: float
    refused: dict[str, int]


@dataclass(frozen=True, slots=True)
class LoadCurve:
    """A server's answers to rising rates.

    Attributes:
        server: Its address.
        clients: Most requests under way at a time.
        busiest: Answers per second to as many callers who ask again at once.
        loads: By rising rate.
    """

    server: str
    clients: int
    busiest: float
    loads: tuple[Load, ...]

    def knee(self) -> float | None:
        """Return the largest rate that is served well, and all smaller ones too; None: not one.

        Well is: 0.95 of the requests are answered in their time, and the 99th percentile is at most
        three times that of the smallest rate.
        """
        best = None
        for load in self.loads:
            slow = not load.p99_ms <= SLOWER * self.loads[0].p99_ms
            if slow or load.refused or load.answered < KEPT * load.offered:
                break
            best = load.offered
        return best

    def is_open(self) -> bool:
        """Tell whether the largest rate was served well, so that the knee lies beyond it."""
        return bool(self.loads) and self.knee() == self.loads[-1].offered

    def to_text(self) -> str:
        """Return a table for people."""
        rows = [
            (f"{load.offered:.1f}", f"{load.answered:.1f}", f"{load.p50_ms:.1f}",
             f"{load.p99_ms:.1f}", ", ".join(f"{n} x {k}" for k, n in load.refused.items()) or "-")
            for load in self.loads
        ]  # fmt: skip
        knee, end = self.knee(), "no rate was served well"
        if knee is not None:
            end = f"{'no knee up to' if self.is_open() else 'knee at'} {knee:.1f} requests/s"
        return "\n".join([
            plain_table(
                f"{self.server}, up to {self.clients} requests under way, latency in ms",
                ("offered/s", "answered/s", "p50", "p99", "refused"), rows,
            ),
            f"{self.clients} busy callers: {self.busiest:.1f} answers/s; {end}",
        ])  # fmt: skip

    def to_json(self) -> str:
        """Return all of it as JSON; what is not a number is null."""
        found = {"knee": self.knee(), "knee_is_beyond": self.is_open()}
        return json_text({**asdict(self), **found}, indent=1)


class Caller:
    """One caller with a connection of its own.

    Args:
        server: ``http://HOST:PORT``.
        model: Name on a Triton server; empty for ``prunus serve http``.
        body: What is sent.
        token: For ``Authorization: Bearer``; empty: none.

    Raises:
        UsageError: no such address.
    """

    def __init__(self, server: str, model: str, body: bytes, token: str = "") -> None:
        try:
            url = urllib.parse.urlsplit(server if "://" in server else f"http://{server}")
            host, port = url.hostname, url.port
        except ValueError:
            host, port = None, None
        if not host or url.scheme not in ("http", "https"):
            raise UsageError(f"Got --server {server}; expected http://HOST:PORT.")
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        self._wire = kinds[url.scheme](host, port, timeout=BODY_S)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._path, self._body = f"{url.path.rstrip('/')}/predict", body
        if model:
            self._path = f"{url.path.rstrip('/')}/v2/models/{urllib.parse.quote(model)}/infer"
            head, text = json_text(_INFER).encode(), len(body).to_bytes(4, "little") + body
            head = head.replace(b'"SIZE"', str(len(text)).encode())
            self._headers["Inference-Header-Content-Length"] = str(len(head))
            self._body = head + text

    def __call__(self) -> str:
        """Ask once; return the status, or what went wrong."""
        try:
            self._wire.request("POST", self._path, self._body, self._headers)
            answer = self._wire.getresponse()
            answer.read(PICTURE_BYTES.most)
            if not answer.isclosed():
                self._wire.close()
            return str(answer.status)
        except NETWORK_ERRORS as error:
            self._wire.close()
            return type(error).__name__

    def close(self) -> None:
        """Close the connection."""
        self._wire.close()


# A picture as text and its JSON alone, by Triton's extension for binary tensors.
_INFER = {
    "inputs": [{
        "name": "body", "shape": [1, 1], "datatype": "BYTES",
        "parameters": {"binary_data_size": "SIZE"},
    }],
    "outputs": [{"name": "json", "parameters": {"binary_data": True}}],
}  # fmt: skip


def arrivals(rate: float, seconds: float, seed: int) -> Floats:
    """Return the times of a Poisson process within `seconds`, at least one."""
    random = np.random.default_rng(seed)
    gaps = random.exponential(1 / rate, max(16, int(4 * rate * seconds)))
    times = np.cumsum(gaps)
    return times[: max(1, int(np.searchsorted(times, seconds)))]


def offer(
    callers: Sequence[Ask],
    due: Floats,
    clock: Callable[[], float] = time.perf_counter,
    wait: Callable[[float], object] | None = None,
) -> Load:
    """Send a request at each of these times by whichever caller is free.

    Args:
        callers: A thread each.
        due: Seconds from now, rising.
        clock: Seconds.
        wait: Waits for so many seconds; None: no longer than until this call is stopped.
    """
    began, left, lock, stopped = clock(), iter(due), threading.Lock(), threading.Event()
    wait = wait or stopped.wait
    latency: list[float] = []
    refused: Counter[str] = Counter()

    def work(ask: Ask) -> None:
        while True:
            with lock:
                at = next(left, None)
            if at is None:
                return
            if (ahead := began + at - clock()) > 0:
                wait(ahead)
            if stopped.is_set():
                return
            status = ask()
            with lock:
                if status == "200":
                    latency.append(clock() - began - at)
                else:
                    refused[status] += 1

    with ThreadPoolExecutor(len(callers)) as pool:
        try:
            list(pool.map(work, callers))
        finally:  # after Ctrl-C, requests that are under way are waited for, and no others
            stopped.set()
    spent = max(clock() - began, float(due[-1]))
    milliseconds = 1000 * np.array(latency)
    p50, p99 = (float("nan"), float("nan")) if not latency else (
        float(np.median(milliseconds)),
        float(np.percentile(milliseconds, 99) if len(latency) >= 100 else milliseconds.max()),
    )  # fmt: skip
    return Load(len(due) / float(due[-1]), len(latency) / spent, p50, p99, dict(refused))


def measure_load(
    server: str,
    model: str,
    body: bytes,
    progress: Progress,
    *,
    rates: Sequence[float] = (),
    clients: int = 64,
    seconds: float = 5.0,
    token: str = "",
) -> LoadCurve:
    """Return a server's answers to rising rates.

    Args:
        server: See `Caller`.
        model: See `Caller`.
        body: See `Caller`.
        progress: Told after each rate.
        rates: Requests per second; none: eight of them around what busy callers get, and on until
            the server falls behind.
        clients: Most requests under way at a time.
        seconds: Length of each rate.
        token: See `Caller`.

    Raises:
        UsageError: no such address.
        SourceError: the server does not answer one request.
    """
    callers = [Caller(server, model, body, token) for _ in range(clients)]
    try:
        if (status := callers[0]()) != "200":
            raise SourceError(
                f"{server} answered {status} to one request; expected 200.",
                "Is it the server's address, and the model's name? See docs/serving.md.",
            )
        # As many as come at once: nobody waits for a time.
        first = offer(callers, np.full(2 * clients, 1e-9))
        if not first.answered:
            raise SourceError(f"{server} answered none of {2 * clients} requests at once.",
                              f"It said: {first.refused}. Take fewer --clients.")  # fmt: skip
        wanted = sorted(rates) or [first.answered * share for share in SHARES]
        curve = LoadCurve(server, clients, first.answered, ())
        for k, rate in enumerate(wanted):  # which grows below
            load = offer(callers, arrivals(rate, seconds, k))
            curve = replace(curve, loads=(*curve.loads, load))
            if not rates and k + 1 == len(wanted) < MOST_RATES and curve.is_open():
                wanted.append(FURTHER * rate)
            progress.update(k + 1, len(wanted), f"{rate:.1f} requests/s")
        return curve
    finally:
        for caller in callers:
            caller.close()
