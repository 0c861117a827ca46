"""ONNX Runtime: the default anywhere; CUDA and TensorRT execution providers by device name.

A run reads the caller's inputs in place and returns fresh arrays, so calls of several threads never
meet. A GPU provider that ONNX Runtime drops on its own is an error here, and nodes that it puts on
the CPU although a GPU was asked for are counted and reported.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from prunus.runtime import host
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.matching import check_graph
from prunus.runtime.errors import FallbackError, HostError, MissingDependencyError
from prunus.runtime.session.base import BackendOptions, BaseSession, Source, title
from prunus.runtime.session.refusal import refused

_logger = logging.getLogger(__name__)

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_DTYPES = {"float": "float32", "double": "float64"}  # the others carry numpy's name
# How it names an operator that it does not have.
_MISSING = re.compile(
    r"[\w.]*:(\w+)\(-?\d+\) is not a registered|No Op registered for (\w+)|"
    r"Could not find an implementation for (\w+)\("
)
_RECORD_PLACEMENT = "session.record_ep_graph_assignment_info"


class OnnxRuntimeSession(BaseSession):
    """Run an ``.onnx`` artifact; calls share nothing but the library's session."""

    backend = "onnxruntime"

    def __init__(
        self, card: ModelCard, session: Any, description: str, options: BackendOptions, at_once: int
    ) -> None:
        super().__init__(card, description, options, at_once=at_once)
        self._session = session
        self._names = [spec.name for spec in card.outputs]

    def _infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run on the caller's arrays as they lie; binding fresh outputs would cost 40 us a call."""
        # The library reads an array at its address, also where no number of its type may begin.
        feed = {
            spec.name: np.require(inputs[spec.name], requirements=("C", "A"))
            for spec in self.card.inputs
        }
        return dict(zip(self._names, self._session.run(self._names, feed), strict=True))

    def _free(self) -> None:
        self._session = None


def open_session(
    source: Source, card: ModelCard, threads: int | None, device: str, options: BackendOptions
) -> OnnxRuntimeSession:
    """Load a file or bytes on the provider of `device` (``cpu``, ``cuda:0``, ``tensorrt:0``).

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        HostError: this ONNX Runtime has no such provider, or cannot start it here.
        ArtifactError: the graph cannot be loaded, or differs from its card.
    """
    kind, count, called = (
        device.partition(":")[0],
        threads or host.usable_cpus(),
        title(source, card),
    )
    session = load(source, called, threads=count, options=options, device=device)
    check_graph(called, card, _tensors(session.get_inputs()), _tensors(session.get_outputs()))
    placed, elsewhere = _report_placement(session, called, kind)
    version = _library().__version__
    saturates = kind == "cpu" and card.precision.precision == "int8" and not host.int8_flag()
    if saturates:
        _logger.warning(
            "%s is int8, and this CPU sums its products in 16 bits (no VNNI): answers may be far "
            "off. Use a float32 file, or judge this one here with prunus check.",
            called,
        )
    placed += ", int8 sums may saturate" if saturates else ""
    description = f"ONNX Runtime {version}, {_PROVIDERS[kind]}{placed}, {count} threads"
    # Its CPU provider runs calls side by side; more of them than CPUs only take memory. The calls
    # of a GPU provider share one device and take turns there anyway.
    at_once = host.usable_cpus() if kind == "cpu" else 1
    opened = OnnxRuntimeSession(card, session, description, options, at_once)
    opened.elsewhere = elsewhere
    return opened


def load(
    source: Source, called: str, *, threads: int, options: BackendOptions, device: str = "cpu"
) -> Any:
    """Return ONNX Runtime's own session, for callers that ask for tensors that are on no card.

    Args:
        source: File, or bytes of a graph.
        called: Name in messages.
        threads: CPU threads.
        options: Switches.
        device: As in `open_session`, which also says what is raised.
    """
    ort = _library()
    kind, _, index = device.partition(":")
    provider = _PROVIDERS[kind]
    if provider not in ort.get_available_providers():
        raise HostError(
            f"This ONNX Runtime has no {provider}; it has {ort.get_available_providers()}.",
            "Install it with: pip uninstall onnxruntime; pip install 'prunus[ort-gpu]'",
        )
    providers: list[Any] = [(provider, {"device_id": index or "0"})] if kind != "cpu" else []
    settings = _settings(ort, threads, options, record=kind != "cpu")
    model = source if isinstance(source, bytes) else str(source)
    try:
        session = ort.InferenceSession(model, settings, [*providers, _PROVIDERS["cpu"]])
    except Exception as error:  # its errors have no common base below Exception
        missing = _MISSING.search(str(error))
        raise refused(
            f"ONNX Runtime {ort.__version__}",
            called,
            source,
            _one_line(error),
            operator="".join(missing.groups("")) if missing else "",
            hint="Copy or export the file again, or upgrade onnxruntime.",
        ) from error
    if provider not in session.get_providers():
        raise FallbackError(
            f"ONNX Runtime dropped {provider} on this machine.", "See what it lacks: prunus doctor"
        )
    return session


def _library() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependencyError("onnxruntime", "ort", "The back end 'onnxruntime'") from None
    return onnxruntime


def _settings(ort: Any, threads: int, options: BackendOptions, record: bool) -> Any:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3  # it writes to stderr; errors come as exceptions as well
    settings.add_session_config_entry("session.intra_op.allow_spinning", str(int(options.spin)))
    if not (record or options.plan_memory):  # only nodes on the CPU
        # A planned buffer is held from the first to the last of the nodes that share it, and the
        # pattern doubles everything after the first run.
        settings.enable_mem_reuse = settings.enable_mem_pattern = False
    if not options.optimise:
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if record:
        settings.add_session_config_entry(_RECORD_PLACEMENT, "1")
    if options.profile_path:
        settings.enable_profiling = True
        settings.profile_file_prefix = options.profile_path
    return settings


def _tensors(values: Iterable[Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    found = {}
    for value in values:
        kind = re.sub(r"tensor\((.*)\)", r"\1", value.type)
        found[value.name] = (_DTYPES.get(kind, kind), tuple(value.shape))
    return found


def _report_placement(session: Any, name: str, kind: str) -> tuple[str, tuple[int, int]]:
    """Return what the description says about nodes left on the CPU, and their number; log it."""
    if kind == "cpu":
        return "", (0, 0)
    ask = getattr(session, "get_provider_graph_assignment_info", None)
    if ask is None:
        return " (this version does not tell which nodes stay on the CPU)", (0, 0)
    counts = count_nodes(ask())
    on_cpu, total = counts.get(_PROVIDERS["cpu"], 0), sum(counts.values())
    if on_cpu:
        _logger.warning("%s: %d of %d nodes run on the CPU, not on %s", name, on_cpu, total, kind)
    return f" ({on_cpu} of {total} nodes on the CPU)", (on_cpu, total)


def count_nodes(assignment: Iterable[Any]) -> dict[str, int]:
    """Count nodes by provider in ONNX Runtime's list of assigned subgraphs."""
    counts: dict[str, int] = {}
    for part in assignment:
        counts[part.ep_name] = counts.get(part.ep_name, 0) + len(part.get_nodes())
    return counts


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .* failed:)?", "", text)
    return re.sub(r"^/\S+\.cc:\d+ .*\) (?=[A-Z])", "", text)  # place in its own source
