"""Open a model file and run it: one class under every back end.

A back end's module loads the model (`open_session`) and fills two hooks of `BaseSession`: run once,
and free. Checks, clocks, turns and the rule of who owns an array are written here alone.
"""

from __future__ import annotations

import abc
import importlib
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

import numpy as np

from prunus.runtime.card.artifact import read_card
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.matching import check_inputs, check_outputs
from prunus.runtime.errors import UsageError
from prunus.runtime.protocols import Closable
from prunus.runtime.session import registry
from prunus.runtime.session.choice import choose
from prunus.runtime.session.turns import Turns

_logger = logging.getLogger(__name__)

InferencePrecision = registry.InferencePrecision
Source = str | Path | bytes


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """Switches of the back ends; one that does not concern a back end is ignored by it.

    Attributes:
        inference_precision: Arithmetic of OpenVINO's matrix products: ``f32``, ``bf16``, or
            ``auto``: bf16 only where the card says that it was measured within the task's budget.
        spin: Let idle worker threads poll for work: lower latency in a tight loop, but they take
            the CPU from the other stages of a live application.
        cuda_graph: Replay a recorded CUDA graph (TensorRT).
        check_finite: Refuse NaN and infinity in floating-point inputs (reads every value).
        cache_dir: Folder in which OpenVINO keeps compiled models, empty for none.
        profile_path: Prefix of the trace that ONNX Runtime writes on close, empty for none.
        plan_memory: Let ONNX Runtime hand buffers from node to node by a plan made in advance, and
            keep one block of that plan's size beside them (its own default). Without, a buffer
            lives from its maker to its last reader only: a half to a quarter of the memory, and
            no slower on a CPU. Elsewhere than on a CPU its default stays.
        optimise: Let ONNX Runtime rewrite the graph; without, it runs node by node as written.
    """

    inference_precision: InferencePrecision = "auto"
    spin: bool = False
    cuda_graph: bool = True
    check_finite: bool = False
    cache_dir: str = ""
    profile_path: str = ""
    plan_memory: bool = False
    optimise: bool = True


class Session(Protocol):
    """What tasks need of a loaded model; `BaseSession` is the one that `open` returns."""

    card: ModelCard
    backend: ClassVar[str]
    description: str
    choice: tuple[str, ...]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once; see `BaseSession.run`."""

    def close(self) -> None:
        """Free the model; safe to call twice."""

    def __enter__(self) -> Session: ...

    def __exit__(self, *_: object) -> None: ...


class BaseSession(Closable):
    """A loaded model; a context manager; any number of threads may share it.

    As many calls run side by side as the back end gains from, the others wait in the order in which
    they came. Memory grows with the calls that run side by side, never with their number.

    Args:
        card: What the model is.
        description: One line: back end, version, device, arithmetic, threads.
        options: Switches.
        at_once: Calls that may be inside `_infer` at a time.

    Attributes:
        card: What the model is.
        backend: Name in the registry.
        description: One line: back end, version, device, arithmetic, threads.
        choice: Why this back end and why not the others, one line each.
        arithmetic: In what it multiplies float32: ``f32``, ``bf16`` or ``f16``.
        elsewhere: Nodes that run on the CPU although another device was asked for, and all nodes,
            where the back end tells them.
    """

    backend: ClassVar[str]

    def __init__(
        self, card: ModelCard, description: str, options: BackendOptions, *, at_once: int = 1
    ) -> None:
        self.card, self.description = card, description
        self.choice: tuple[str, ...] = ()
        self.arithmetic, self.elsewhere = "f32", (0, 0)
        self._options = options
        self._turns = Turns(at_once, f"The session of {card.name}")
        self._clock = threading.local()

    @property
    def run_ms(self) -> float:
        """Milliseconds of this thread's last run, its wait for a turn left out; NaN before one."""
        return float(getattr(self._clock, "run_ms", float("nan")))

    @property
    def settings(self) -> dict[str, Any]:
        """The switches that this back end reads, for reports."""
        names = registry.find(self.backend).settings
        return {name: getattr(self._options, name) for name in names}

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once.

        Args:
            inputs: One array per input of the card, exactly of its shape and dtype. They are only
                read, and not kept.

        Returns:
            One array per output of the card. They belong to the caller: no later call changes them.

        Raises:
            TensorError: a name, shape, dtype or value does not fit, of an input or of an output.
            UsageError: the session has been closed.
            HostError: the device refused.
        """
        check_inputs(self.card, inputs, finite=self._options.check_finite)
        with self._turns:
            began = time.perf_counter_ns()
            outputs = self._infer(inputs)
            self._clock.run_ms = (time.perf_counter_ns() - began) / 1e6
        check_outputs(self.card, outputs)
        return outputs

    def close(self) -> None:
        """Wait for the calls that have begun and free the model; safe to call twice."""
        if self._turns.shut():
            self._free()

    @abc.abstractmethod
    def _infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once on checked inputs and return arrays that nothing else holds."""

    @abc.abstractmethod
    def _free(self) -> None:
        """Free the model; called once, with no call inside."""


class _BackendModule(Protocol):
    """What each back end's module offers."""

    @staticmethod
    def open_session(
        source: Source, card: ModelCard, threads: int | None, device: str, options: BackendOptions
    ) -> BaseSession: ...


def open(
    path: Source,
    backend: str = "auto",
    *,
    threads: int | None = None,
    device: str = "cpu",
    options: BackendOptions | None = None,
    card: ModelCard | None = None,
) -> BaseSession:
    """Open a model file.

    Args:
        path: ``.onnx`` file, or ``.engine`` with its sidecar; or the bytes of an ONNX graph. A file
            without our card runs by its tensors, which must have fixed sizes.
        backend: Name of a back end, or ``auto``; what `auto` chose and why is in
            `BaseSession.choice` and in the log.
        threads: CPU threads of the model, None for the CPUs that this process may use.
        device: ``cpu``, or a device of the back end such as ``cuda:0``.
        options: Switches of the back ends.
        card: What the graph is, in place of the card in the file; bytes need it.

    Returns:
        A session; close it, or use it in a `with` statement.

    Raises:
        ArtifactError: the file or its card cannot be used.
        MissingDependencyError: the back end that was asked for is not installed.
        HostError: the device that was asked for is not there.
        UsageError: no such back end or device, or a thread count below 1.

    Example:
        >>> import prunus.runtime as runtime
        >>> with runtime.open("evitpose.onnx", threads=2) as session:  # doctest: +SKIP
        ...     keypoints = session.run({"image": crops})["keypoints"]
    """
    if threads is not None and threads < 1:
        raise UsageError(
            f"Got {threads} threads; expected 1 or more.", "Leave it out for all CPUs."
        )
    options = options or BackendOptions()
    if isinstance(path, bytes):
        if card is None:
            raise UsageError("Got the bytes of a graph without a card.", "Give card=...")
        source, named = cast(Source, path), Path("graph.onnx")
    else:
        source = named = Path(path)
        card = card or read_card(named)
    choice = choose(named, card, backend, device, options.inference_precision)
    module = cast(_BackendModule, importlib.import_module(choice.backend.module))
    session = module.open_session(source, card, threads, device, options)
    session.choice = choice.reasons
    _logger.info("%s: %s", named.name, session.description)
    for reason in choice.reasons:
        _logger.info("%s: %s", named.name, reason)
    return session


def title(source: Source, card: ModelCard) -> str:
    """Return how messages call what was opened: its path, or the card's name for bytes."""
    return f"the graph of {card.name}" if isinstance(source, bytes) else str(source)
