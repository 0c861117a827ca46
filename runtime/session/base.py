"""Open a model file and run it: one protocol over every back end."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, cast

import numpy as np

from prunus.runtime.card.artifact import read_card
from prunus.runtime.card.card import ModelCard
from prunus.runtime.errors import UsageError
from prunus.runtime.session.registry import choose

_logger = logging.getLogger(__name__)

InferencePrecision = Literal["auto", "f32", "bf16"]


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
    """

    inference_precision: InferencePrecision = "auto"
    spin: bool = False
    cuda_graph: bool = True
    check_finite: bool = False
    cache_dir: str = ""
    profile_path: str = ""
    plan_memory: bool = False


class Session(Protocol):
    """A loaded model with its buffers allocated; a context manager; not for concurrent calls.

    Attributes:
        card: What the model is.
        backend: ``onnxruntime``, ``openvino`` or ``tensorrt``.
        description: One line: back end, version, device, arithmetic, threads.
        choice: Why this back end and why not the others, one line each.
    """

    card: ModelCard
    backend: str
    description: str
    choice: tuple[str, ...]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once.

        Args:
            inputs: One array per input of the card, exactly of its shape and dtype.

        Returns:
            One array per output of the card. These are the session's own buffers: the next call
            overwrites them, so copy what must last.

        Raises:
            TensorError: a name, shape, dtype or value does not fit.
        """

    def close(self) -> None:
        """Free the model; safe to call twice."""

    def __enter__(self) -> Session: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class _BackendModule(Protocol):
    """What each back end's module offers."""

    @staticmethod
    def open_session(
        path: Path, card: ModelCard, threads: int | None, device: str, options: BackendOptions
    ) -> Session: ...


def open(
    path: str | Path,
    backend: str = "auto",
    *,
    threads: int | None = None,
    device: str = "cpu",
    options: BackendOptions | None = None,
) -> Session:
    """Open a model file.

    Args:
        path: ``.onnx`` artifact, or ``.engine`` with its sidecar.
        backend: Name of a back end, or ``auto``; what `auto` chose and why is in
            `Session.choice` and in the log.
        threads: CPU threads of the model, None for the CPUs that this process may use.
        device: ``cpu``, or a device of the back end such as ``cuda:0``.
        options: Switches of the back ends.

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
    path, options = Path(path), options or BackendOptions()
    card = read_card(path)
    choice = choose(path, card, backend, device, options.inference_precision)
    module = cast(_BackendModule, importlib.import_module(choice.backend.module))
    session = module.open_session(path, card, threads, device, options)
    session.choice = choice.reasons
    _logger.info("%s: %s", path.name, session.description)
    for reason in choice.reasons:
        _logger.info("%s: %s", path.name, reason)
    return session
