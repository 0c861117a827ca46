"""The same work on Ray Data: a pool of actors with warm models, on this machine or on many."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from prunus.apps.batch.inputs import Input
from prunus.apps.batch.ledger import Outcome
from prunus.apps.batch.manifest import Run
from prunus.apps.batch.options import AUTO, Work
from prunus.apps.batch.storage import reason_of
from prunus.apps.batch.worker import Worker
from prunus.runtime.errors import (
    HostError,
    MissingDependencyError,
    PrunusError,
    SourceError,
    UsageError,
)
from prunus.runtime.json_text import json_text
from prunus.runtime.pictures.opencv import quiet_stderr

# Read when Ray is imported: nothing is sent anywhere, and its own machinery keeps quiet.
_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
_MOST_BLOCKS = 1000  # in which the groups are shared out, so that many inputs are no burden
_STORE_BYTES = 128 << 20  # for the few words that travel between processes
_PORT = 6379
_WAIT = 10.0  # seconds for a head that does not answer
_FAREWELL = 1.0  # seconds for a thread that reads ahead


def on_ray(
    run: Run, number: str, groups: Sequence[Sequence[Input]], say: Callable[[str], None]
) -> Iterator[Outcome]:
    """Yield what becomes of the inputs of all groups, in any order.

    A process or a node that dies is replaced, and what it had in hand is done again; what it had
    finished is not. Work is handed out as the actors can take it.

    Args:
        run: Which run.
        number: Tells this start of the program from others.
        groups: Inputs that share the model's runs.
        say: Tells people a line.

    Raises:
        UsageError: there is no such cluster, or it is too small.
        HostError: Ray broke off.
        PrunusError: a worker cannot work.
    """
    with _joined(run.options.work) as ray:
        work, threads = run.options.work, run.options.compute.threads
        count = _actors(work, threads, ray.cluster_resources(), len(groups))
        nodes = sum(node["Alive"] for node in ray.nodes())
        say(f"{count} actors on {nodes} nodes of Ray {ray.__version__}")
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        words = [{"group": json_text([dataclasses.asdict(i) for i in g])} for g in groups]
        told = ray.data.from_items(words, override_num_blocks=min(len(words), _MOST_BLOCKS))
        told = told.map_batches(
            _Actor, fn_constructor_args=(run, number, os.getcwd()), batch_size=1, num_cpus=threads,
            num_gpus=work.gpus_per_actor or None,
            compute=ray.data.ActorPoolStrategy(
                min_size=1, max_size=count, initial_size=count, max_tasks_in_flight_per_actor=2
            ),
        )  # fmt: skip
        before, rows = set(threading.enumerate()), iter(told.iter_rows())
        try:
            for row in rows:
                yield from _read(json.loads(row["told"]))
        except PrunusError:
            raise
        except Exception as error:  # of Ray, or of what ran there: it has many kinds
            raise HostError(
                f"Ray broke off: {type(error).__name__}: {reason_of(error)}.",
                "Run the same again: it goes on where this ended.",
            ) from error
        finally:
            if (close := getattr(rows, "close", None)) is not None:
                close()
            # Threads of Ray's that still read ahead while Ray ends would end this program with it,
            # without a word. One of them never ends, and does nothing any more.
            for thread in set(threading.enumerate()) - before:
                thread.join(_FAREWELL)


class _Actor:
    """A worker as Ray Data calls it. Errors travel as words: not every error can be packed."""

    def __init__(self, run: Run, number: str, here: str) -> None:
        self._worker: Worker | None = None
        self._error: dict[str, Any] = {}
        with contextlib.suppress(OSError):  # relative names mean what they mean to the driver
            os.chdir(here)
        try:
            self._worker = Worker(run, number)
        except PrunusError as error:
            self._error = _packed(error)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        told: list[dict[str, Any]] = [self._error]
        if self._worker is not None:
            group = [Input(**values) for values in json.loads(str(batch["group"][0]))]
            try:
                told = [dataclasses.asdict(outcome) for outcome in self._worker(group)]
            except PrunusError as error:
                told = [_packed(error)]
        return {"told": [json_text(told)]}


def _packed(error: PrunusError) -> dict[str, Any]:
    return {"error": error.message, "hint": error.hint, "exit_code": error.exit_code}


def _read(told: Sequence[Mapping[str, Any]]) -> Iterator[Outcome]:
    for values in told:
        if "error" in values:
            kind = HostError if values["exit_code"] == HostError.exit_code else UsageError
            raise kind(str(values["error"]), str(values["hint"]))
        yield Outcome(**{**values, "notes": tuple(values["notes"])})


@contextlib.contextmanager
def _joined(work: Work) -> Iterator[Any]:
    """Yield Ray, started on this machine or joined; leave it at the end."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError:
        raise MissingDependencyError("ray", "batch", "--ray") from None
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    how: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if work.ray == AUTO:
        how |= {"address": "local", "include_dashboard": False, "object_store_memory": _STORE_BYTES}
    else:
        how["address"] = _reachable(work.ray)
    try:
        with quiet_stderr():
            ray.init(**how)
    except (OSError, RuntimeError, ValueError) as error:
        raise HostError(
            f"Cannot use Ray at {work.ray}: {reason_of(error)}.",
            "Check that its version is the same everywhere, or give --ray none.",
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _reachable(address: str) -> str:
    """Return an address at which somebody listens.

    Raises:
        UsageError: it has another form.
        SourceError: nobody does.
    """
    host, colon, port = address.rpartition(":")
    if "/" in address or (colon and not port.isdecimal()):
        raise UsageError(
            f"Got --ray {address}; expected none, auto or HOST:PORT.",
            f"Give the address of the head as ray start tells it, such as head:{_PORT}.",
        )
    place = (host, int(port)) if colon else (address, _PORT)
    try:
        socket.create_connection(place, _WAIT).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise SourceError(
            f"No Ray cluster answers at {place[0]}:{place[1]}: {reason_of(error)}.",
            f"Start one with: ray start --head --port {_PORT}; or leave out --ray.",
        ) from None
    return f"{place[0]}:{place[1]}"


def _actors(work: Work, threads: int, there: Mapping[str, float], groups: int) -> int:
    """Return how many actors there will be.

    Raises:
        UsageError: the cluster has not enough for them, and would wait for ever.
    """
    most = int(there.get("CPU", 0) // threads)
    needs = f"{threads} CPUs"
    if work.gpus_per_actor:
        most = min(most, int(there.get("GPU", 0) / work.gpus_per_actor + 1e-6))
        needs += f" and {work.gpus_per_actor:g} GPUs"
    asked = work.actors or most
    if not 1 <= asked <= most:
        raise UsageError(
            f"Got --actors {asked} of {needs} each; Ray has {there.get('CPU', 0):g} CPUs and "
            f"{there.get('GPU', 0):g} GPUs, enough for {most}.",
            "Give less --actors, --threads or --gpus-per-actor.",
        )
    return min(asked, groups)
