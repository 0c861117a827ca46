"""A TensorRT for the session's logic: the same names as the real bindings, work on ordinary memory.

`test_backend_tensorrt.py` compares every class here with the real bindings when they are installed.
The "engine" doubles its input and adds one.
"""

import ctypes
from collections.abc import Callable
from enum import IntEnum
from typing import Any, ClassVar

import numpy as np

__version__ = "10.99.0"
PLAN = b"plan of the fake"


class DataType(IntEnum):
    FLOAT = 0
    UINT8 = 5


class TensorIOMode(IntEnum):
    INPUT = 1
    OUTPUT = 2


class ILogger:
    class Severity(IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1


class Logger(ILogger):
    def __init__(self, min_severity: ILogger.Severity) -> None:
        assert min_severity == ILogger.Severity.ERROR


def nptype(trt_type: DataType) -> type:
    return {DataType.FLOAT: np.float32, DataType.UINT8: np.uint8}[trt_type]


class LayerInformationFormat(IntEnum):
    ONELINE = 0
    JSON = 1


class EngineInspector:
    def get_engine_information(self, format: LayerInformationFormat) -> str:
        assert format == LayerInformationFormat.JSON
        return '{"Layers": []}'


class IExecutionContext:
    _WORK = ctypes.CFUNCTYPE(None, ctypes.c_int)
    _library: Any = None  # the fake driver that work is queued on
    _capturable: bool | None = None
    _accepts = True

    def __init__(self, tensors: dict[str, tuple[tuple[int, ...], DataType]]) -> None:
        self._tensors = tensors
        self._addresses: dict[str, int] = {}
        self._callback = self._WORK(self._compute)
        self._enqueued = 0
        if self._capturable is not None:
            self.is_stream_capturable: Callable[[int], bool] = self._answer

    def _answer(self, stream: int) -> bool:
        assert stream
        return bool(self._capturable)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert stream_handle and self._addresses.keys() == self._tensors.keys()
        self._enqueued += 1
        if self._accepts:
            assert self._library.fake_enqueue(self._callback, 0) == 0
        return self._accepts

    def _array(self, name: str) -> np.ndarray:
        shape, kind = self._tensors[name]
        dtype = np.dtype(nptype(kind))
        size = int(np.prod(shape)) * dtype.itemsize
        memory = (ctypes.c_uint8 * size).from_address(self._addresses[name])
        return np.frombuffer(memory, dtype=dtype).reshape(shape)

    def _compute(self, _: int) -> None:
        self._array("y")[:] = self._array("x").astype(np.float32) * 2 + 1


class ICudaEngine:
    _tensors: ClassVar = {"x": ((2, 3), DataType.UINT8), "y": ((2, 3), DataType.FLOAT)}

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name == "x" else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name][0]

    def get_tensor_dtype(self, name: str) -> DataType:
        return self._tensors[name][1]

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector()

    def create_execution_context(self) -> IExecutionContext:
        return IExecutionContext(self._tensors)


class IPluginRegistry:
    _loaded: ClassVar[list[str]] = []
    _accepts: ClassVar[bool] = True

    def load_library(self, plugin_path: str) -> object | None:
        if self._accepts:
            self._loaded.append(plugin_path)
        return object() if self._accepts else None

    def get_creator(self, type: str, version: str, plugin_namespace: str = "") -> object | None:
        assert (type, version, plugin_namespace) == ("LocalGlobalAttention", "1", "prunus")
        return object() if self._loaded else None


def get_plugin_registry() -> IPluginRegistry:
    return IPluginRegistry()


class Runtime:
    def __init__(self, logger: Logger) -> None:
        assert isinstance(logger, Logger)

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        return ICudaEngine() if serialized_engine == PLAN else None
