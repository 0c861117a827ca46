"""ONNX Runtime: the default anywhere; CUDA and TensorRT execution providers by device name.

Inputs and outputs are bound once to arrays of the session, so a run allocates nothing outside the
library. A GPU provider that ONNX Runtime drops on its own is an error here, and nodes that it puts
on the CPU although a GPU was asked for are counted and reported.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prunus.runtime import host
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.matching import check_graph, check_inputs
from prunus.runtime.errors import ArtifactError, HostError, MissingDependencyError
from prunus.runtime.protocols import Closable
from prunus.runtime.session.base import BackendOptions

_logger = logging.getLogger(__name__)

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_DTYPES = {"float": "float32", "double": "float64"}  # the others carry numpy's name
_RECORD_PLACEMENT = "session.record_ep_graph_assignment_info"


class OnnxRuntimeSession(Closable):
    """Run an ``.onnx`` artifact; the arrays that `run` returns are reused by the next call."""

    backend = "onnxruntime"

    def __init__(self, card: ModelCard, session: Any, description: str, finite: bool) -> None:
        self.card, self.description, self.choice = card, description, ()
        self._session, self._finite = session, finite
        self._inputs = {s.name: np.zeros(s.shape, s.dtype) for s in card.inputs}
        self._outputs = {s.name: np.zeros(s.shape, s.dtype) for s in card.outputs}
        self._binding = session.io_binding()
        for bind, arrays in (
            (self._binding.bind_input, self._inputs),
            (self._binding.bind_output, self._outputs),
        ):
            for name, array in arrays.items():
                bind(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    choice: tuple[str, ...]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once; see `prunus.runtime.session.base.Session.run`."""
        for spec in check_inputs(self.card, inputs, finite=self._finite):
            np.copyto(self._inputs[spec.name], inputs[spec.name])
        self._session.run_with_iobinding(self._binding)
        return dict(self._outputs)

    def close(self) -> None:
        """Free the model; safe to call twice."""
        self._binding = self._session = None


def open_session(
    path: str | Path, card: ModelCard, threads: int | None, device: str, options: BackendOptions
) -> OnnxRuntimeSession:
    """Load `path` on the provider that `device` names (``cpu``, ``cuda:0``, ``tensorrt:0``).

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        HostError: this ONNX Runtime has no such provider, or cannot start it here.
        ArtifactError: the graph cannot be loaded, or differs from its card.
    """
    try:
        import onnxruntime as ort
    except ImportError:
        raise MissingDependencyError("onnxruntime", "ort", "The back end 'onnxruntime'") from None
    kind, _, index = device.partition(":")
    provider, count = _PROVIDERS[kind], threads or host.usable_cpus()
    if provider not in ort.get_available_providers():
        raise HostError(
            f"This ONNX Runtime has no {provider}; it has {ort.get_available_providers()}.",
            "Install it with: pip uninstall onnxruntime; pip install 'prunus[ort-gpu]'",
        )
    providers: list[Any] = [(provider, {"device_id": index or "0"})] if kind != "cpu" else []
    settings = _settings(ort, count, options, record=kind != "cpu")
    try:
        session = ort.InferenceSession(str(path), settings, [*providers, _PROVIDERS["cpu"]])
    except Exception as error:  # its errors have no common base below Exception
        raise ArtifactError(
            f"ONNX Runtime {ort.__version__} cannot load {path}: {_one_line(error)}",
            "Copy or export the file again, or upgrade onnxruntime.",
        ) from error
    if provider not in session.get_providers():
        raise HostError(
            f"ONNX Runtime dropped {provider} on this machine.", "See what it lacks: prunus doctor"
        )
    check_graph(path, card, _tensors(session.get_inputs()), _tensors(session.get_outputs()))
    placed = _report_placement(session, path.name if isinstance(path, Path) else path, kind)
    description = f"ONNX Runtime {ort.__version__}, {provider}{placed}, {count} threads"
    return OnnxRuntimeSession(card, session, description, options.check_finite)


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


def _report_placement(session: Any, name: str, kind: str) -> str:
    """Return what the description says about nodes left on the CPU, and log it."""
    if kind == "cpu":
        return ""
    ask = getattr(session, "get_provider_graph_assignment_info", None)
    if ask is None:
        return " (this version does not tell which nodes stay on the CPU)"
    counts = count_nodes(ask())
    on_cpu, total = counts.get(_PROVIDERS["cpu"], 0), sum(counts.values())
    if on_cpu:
        _logger.warning("%s: %d of %d nodes run on the CPU, not on %s", name, on_cpu, total, kind)
    return f" ({on_cpu} of {total} nodes on the CPU)"


def count_nodes(assignment: Iterable[Any]) -> dict[str, int]:
    """Count nodes by provider in ONNX Runtime's list of assigned subgraphs."""
    counts: dict[str, int] = {}
    for part in assignment:
        counts[part.ep_name] = counts.get(part.ep_name, 0) + len(part.get_nodes())
    return counts


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)[:300]
