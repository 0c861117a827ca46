"""TensorRT engines: ``tensorrt`` 10 and 11 and ``tensorrt_rtx`` behind one session.

The plan file is opened only after its sidecar has been compared with this machine and the driver
has been probed, because TensorRT ends the whole process when it meets no driver. Each call copies
into page-locked buffers and replays one CUDA graph (upload, network, download); without graphs the
same three steps are queued one by one.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prunus.runtime.card.artifact import EngineSidecar
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.matching import check_graph
from prunus.runtime.errors import ArtifactError, HostError
from prunus.runtime.plugins.library import PluginLibrary, check_gpu, find_stamped, register
from prunus.runtime.session.base import BackendOptions, BaseSession, Source
from prunus.runtime.session.tensorrt.cuda import Gpu, device_properties
from prunus.runtime.session.tensorrt.match import explain_mismatch, import_flavour, rebuild_hint

_logger = logging.getLogger(__name__)


class TensorRTSession(BaseSession):
    """Run an engine; calls take turns, because they share one execution context and its buffers."""

    backend = "tensorrt"

    def __init__(
        self,
        engine: str | Path,
        sidecar: EngineSidecar,
        trt: Any,
        gpu: Gpu,
        options: BackendOptions,
    ) -> None:
        super().__init__(sidecar.card, "", options)
        self._trt, self._gpu, self._graph = trt, gpu, 0
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        self._host: dict[str, np.ndarray] = {}
        self._device: dict[str, int] = {}
        try:
            graph = self._prepare(Path(engine), sidecar, trt, options.cuda_graph)
        except BaseException:
            self._free()
            raise
        self.description = (
            f"{sidecar.flavour} {sidecar.version}, {gpu.properties.name} "
            f"(sm {gpu.properties.compute_capability}), {self.card.precision.precision}, "
            f"CUDA graph {graph}"
        )

    def _prepare(self, path: Path, sidecar: EngineSidecar, trt: Any, cuda_graph: bool) -> str:
        self._runtime = trt.Runtime(trt.Logger(trt.ILogger.Severity.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is not None:
            modes = (trt.TensorIOMode.INPUT, trt.TensorIOMode.OUTPUT)
            check_graph(path, self.card, *(_tensors(trt, self._engine, mode) for mode in modes))
            self._context = self._engine.create_execution_context()
        if self._context is None:
            what = "open" if self._engine is None else "prepare"
            raise ArtifactError(
                f"{trt.__name__} {trt.__version__} could not {what} {path} (its log says why).",
                rebuild_hint(path, sidecar),
            )
        gpu, specs = self._gpu, (*self.card.inputs, *self.card.outputs)
        self._host = {s.name: gpu.pinned_array(s.shape, np.dtype(s.dtype)) for s in specs}
        self._device = {name: gpu.device_buffer(array.nbytes) for name, array in self._host.items()}
        for name, address in self._device.items():
            self._context.set_tensor_address(name, address)
        return self._capture() if cuda_graph else "off"

    def _infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self._gpu.activate()
        for spec in self.card.inputs:
            np.copyto(self._host[spec.name], inputs[spec.name])
        if self._graph:
            self._gpu.launch(self._graph)
        else:
            self._enqueue()
        self._gpu.synchronise()
        return {spec.name: self._host[spec.name].copy() for spec in self.card.outputs}

    def layer_report(self) -> str:
        """Return TensorRT's description of every layer as JSON (see `export/engine/report.py`)."""
        inspector = self._engine.create_engine_inspector()
        return str(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))

    def _free(self) -> None:
        if self._context is not None:
            # A GPU that has failed says so here as well; what can be freed still is.
            with contextlib.suppress(HostError):
                self._gpu.activate()
                self._gpu.synchronise()
        # In this order: each object uses the ones after it.
        self._context = self._engine = self._runtime = None
        self._host = {}
        self._gpu.close()

    def _enqueue(self) -> None:
        for spec in self.card.inputs:
            self._gpu.upload(self._host[spec.name], self._device[spec.name])
        if not self._context.execute_async_v3(self._gpu.stream):
            raise HostError("TensorRT could not queue the engine.", "See: prunus doctor")
        for spec in self.card.outputs:
            self._gpu.download(self._device[spec.name], self._host[spec.name])

    def _capture(self) -> str:
        """Record one call as a CUDA graph; returns what the description says about it."""
        # The first call allocates and may compile, which a capture cannot hold.
        self._enqueue()
        self._gpu.synchronise()
        # Only TensorRT-RTX has this question: kernels that it still compiles forbid a capture.
        capturable = getattr(self._context, "is_stream_capturable", None)
        if capturable is not None and not capturable(self._gpu.stream):
            _logger.warning("This engine cannot be captured as a CUDA graph; running without.")
            return "not possible"
        with self._gpu.capture() as recorded:
            self._enqueue()
        self._graph = recorded[0]
        return "on"


def open_session(
    source: Source,
    card: ModelCard | None = None,
    threads: int | None = None,
    device: str = "cuda:0",
    options: BackendOptions | None = None,
    *,
    plugin: PluginLibrary | None = None,
) -> TensorRTSession:
    """Open an engine after comparing its sidecar with this machine.

    Args:
        source: Plan file; its sidecar lies beside it.
        card: Not used: the sidecar holds the card that the engine was built from.
        threads: Not used: the work is the GPU's.
        device: ``cuda:N`` or ``gpu:N``; anything without a number means GPU 0.
        options: ``cuda_graph=False`` switches graphs off.
        plugin: Plugin library, where the engine needs one; None: looked up.

    Raises:
        ArtifactError: the engine, its sidecar or its plugin library does not fit this machine;
            says what differs.
        MissingDependencyError: the flavour's package is not installed.
        HostError: no driver or no GPU.
    """
    if isinstance(source, bytes):
        raise ArtifactError("Got the bytes of an engine; expected its file.", "Write it first.")
    path, sidecar = source, EngineSidecar.read(source)
    trt = import_flavour(sidecar.flavour)
    index = int(device.rpartition(":")[2]) if device.rpartition(":")[2].isdigit() else 0
    gpu = device_properties(index)
    explain_mismatch(path, sidecar, str(trt.__version__), gpu)
    if sidecar.plugin:
        library = plugin or find_stamped(sidecar.plugin, path)
        check_gpu(library, gpu.name, gpu.compute_capability)
        register(trt, library)
    return TensorRTSession(path, sidecar, trt, Gpu(index), options or BackendOptions())


def _tensors(trt: Any, engine: Any, mode: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    return {
        name: (
            np.dtype(trt.nptype(engine.get_tensor_dtype(name))).name,
            tuple(engine.get_tensor_shape(name)),
        )
        for name in names
        if engine.get_tensor_mode(name) == mode
    }
