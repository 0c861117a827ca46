"""OpenVINO: the same ``.onnx`` artifact on x86 and ARM CPUs, Intel GPUs and NPUs.

Without being told otherwise OpenVINO multiplies in bfloat16 wherever the CPU can. Here the default
is float32, and bfloat16 is used when the caller asks for it, or when the card says that it was
measured inside the task's error budget.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from prunus.runtime import host
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.matching import check_graph
from prunus.runtime.errors import HostError, MissingDependencyError
from prunus.runtime.session.base import BackendOptions, BaseSession, Source, title
from prunus.runtime.session.openvino.attention import add_attention
from prunus.runtime.session.openvino.masks import keep_masks_apart
from prunus.runtime.session.openvino.signal_stack import kept_signal_stack
from prunus.runtime.session.openvino.tail import keep_in_float32
from prunus.runtime.session.refusal import refused

# How it names the first of the operators that it does not have: DOMAIN.TYPE or TYPE-OPSET.
_MISSING = re.compile(r"No conversion rule found for operations: (?:[\w.]+\.)?(\w+)")


@dataclass(frozen=True, slots=True)
class _Lane:
    """One infer request with the arrays that it is bound to; for one call at a time."""

    request: Any
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]

    @staticmethod
    def of(compiled: Any, card: ModelCard) -> _Lane:
        import openvino as ov

        inputs = {s.name: np.zeros(s.shape, s.dtype) for s in card.inputs}
        outputs = {s.name: np.zeros(s.shape, s.dtype) for s in card.outputs}
        request = compiled.create_infer_request()
        for name, array in {**inputs, **outputs}.items():
            request.set_tensor(name, ov.Tensor(array, shared_memory=True))
        return _Lane(request, inputs, outputs)


class OpenVinoSession(BaseSession):
    """Run an ``.onnx`` artifact with as many infer requests as OpenVINO itself makes use of."""

    backend = "openvino"

    def __init__(
        self, card: ModelCard, compiled: Any, description: str, options: BackendOptions
    ) -> None:
        at_once = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        super().__init__(card, description, options, at_once=at_once)
        self._compiled = compiled
        self._idle = deque(_Lane.of(compiled, card) for _ in range(at_once))

    def _infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        lane = self._idle.popleft()
        try:
            for name, array in lane.inputs.items():
                np.copyto(array, inputs[name])
            lane.request.infer(share_outputs=True)  # its own copies would be thrown away
            return {name: array.copy() for name, array in lane.outputs.items()}
        finally:
            self._idle.append(lane)

    @kept_signal_stack()
    def _free(self) -> None:
        self._idle.clear()
        self._compiled = None


@kept_signal_stack()
def open_session(
    source: Source, card: ModelCard, threads: int | None, device: str, options: BackendOptions
) -> OpenVinoSession:
    """Compile a file or a graph's bytes for ``cpu``, ``gpu`` or ``npu``.

    Raises:
        MissingDependencyError: openvino is not installed.
        HostError: no such device here, or it does not compute in what was asked for.
        ArtifactError: the graph cannot be read or compiled, or differs from its card.
    """
    try:
        import openvino as ov
    except ImportError:
        raise MissingDependencyError("openvino", "openvino", "The back end 'openvino'") from None
    core, kind = ov.Core(), device.replace(":", ".").upper()
    if kind.partition(".")[0] not in {name.partition(".")[0] for name in core.available_devices}:
        raise HostError(
            f"OpenVINO finds no device '{device}' here; it finds {core.available_devices}.",
            "Use --device cpu, or install the driver of the device.",
        )
    count, precision = threads or host.usable_cpus(), arithmetic(card, options, kind)
    config = _config(kind, count, precision, options)
    called = title(source, card)
    try:
        add_attention(core)
        model = core.read_model(source if isinstance(source, bytes) else str(source))
        if precision != "f32":
            keep_masks_apart(model)
        kept = keep_in_float32(core, model) if precision == "bf16" else ()
        compiled = core.compile_model(model, kind, config)
    except Exception as error:  # it raises RuntimeError and its own kinds
        missing = _MISSING.search(str(error))
        raise refused(
            f"OpenVINO {version()}",
            called,
            source,
            _one_line(error),
            operator=missing[1] if missing else "",
            hint="Use --backend onnxruntime, or export the file again.",
        ) from error
    known = {spec.name for spec in (*card.inputs, *card.outputs)}
    check_graph(called, card, _tensors(compiled.inputs, known), _tensors(compiled.outputs, known))
    used = str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
    asked = options.inference_precision
    if asked not in ("auto", used):
        raise HostError(
            f"OpenVINO computes in {used} on this {kind}; {asked} was asked for.",
            "Use another arithmetic (auto, f32), or a device that has this one.",
        )
    tail = f" (last layers in f32: {len(kept)})" if kept and used == "bf16" else ""
    description = f"OpenVINO {version()}, {kind}, {used} arithmetic{tail}, {count} threads"
    session = OpenVinoSession(card, compiled, description, options)
    session.arithmetic = used
    return session


def version() -> str:
    """Return the installed version without importing the package."""
    return host.version_of("openvino")


def arithmetic(card: ModelCard, options: BackendOptions, kind: str) -> str:
    """Return the precision hint: ``f32``, ``bf16``, or empty for the device's own.

    Args:
        card: Says which lower arithmetic was measured within the task's budget.
        options: What the caller asked for comes first.
        kind: OpenVINO's name of the device.
    """
    if options.inference_precision != "auto":
        return options.inference_precision
    if kind.startswith("NPU"):
        return ""  # it has half precision and no other
    if kind.startswith("GPU"):
        return "" if card.precision.precision != "fp32" else "f32"
    allowed = "bf16" in card.precision.also_within_budget
    return "bf16" if allowed and host.bfloat16_flag() else "f32"


def _config(kind: str, threads: int, precision: str, options: BackendOptions) -> dict[str, Any]:
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if precision:
        config["INFERENCE_PRECISION_HINT"] = precision
    if kind == "CPU":
        config["INFERENCE_NUM_THREADS"] = threads
        # A pinned worker cannot get out of the way of the other stages of a live application.
        config["ENABLE_CPU_PINNING"] = False
        # Weights that are stored in 8 bits would make it round activations to 8 bits as well.
        config["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0
    if options.cache_dir:
        config["CACHE_DIR"] = options.cache_dir
    return config


def _tensors(ports: Any, known: set[str]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return name -> (dtype, shape); a port takes over the names of nodes that did nothing."""
    found = {}
    for port in ports:
        names = sorted(known & set(port.get_names())) or [port.get_any_name()]
        found[names[0]] = (np.dtype(port.element_type.to_dtype()).name, tuple(port.shape))
    return found


def _one_line(error: Exception) -> str:
    """Return the last sentence of OpenVINO's report, which names the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
