"""The few calls of the CUDA driver that an engine needs, through ctypes.

Only ``libcuda.so.1`` is opened, which every NVIDIA driver installs: neither the CUDA toolkit nor a
Python package is needed. The device's *primary* context is used, the one that TensorRT shares.

Prototypes: CUDA Driver API, https://docs.nvidia.com/cuda/cuda-driver-api.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from dataclasses import dataclass
from typing import Any

import numpy as np

from prunus.runtime.errors import HostError

LIBRARY = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may allocate meanwhile

# Function -> argument types; all return CUresult. Names with a suffix are what cuda.h maps to.
PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuDevicePrimaryCtxRelease_v2": (c_int,),
    "cuCtxSetCurrent": (c_void_p,),
    "cuMemAlloc_v2": (POINTER(c_uint64), c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemAllocHost_v2": (POINTER(c_void_p), c_size_t),
    "cuMemFreeHost": (c_void_p,),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
    "cuStreamCreate": (POINTER(c_void_p), c_uint),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamEndCapture": (c_void_p, POINTER(c_void_p)),
    "cuGraphInstantiateWithFlags": (POINTER(c_void_p), c_void_p, c_uint64),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphExecDestroy": (c_void_p,),
    "cuGraphDestroy": (c_void_p,),
}


@dataclass(frozen=True, slots=True)
class DeviceProperties:
    """A GPU as far as an engine cares.

    Attributes:
        index: Number of the device.
        name: Name that the driver gives.
        compute_capability: ``major.minor``.
        driver: Newest CUDA version that the driver supports, ``major.minor``.
    """

    index: int
    name: str
    compute_capability: str
    driver: str


class Driver:
    """The loaded driver; every call raises HostError with the driver's own words."""

    def __init__(self, library: str | None = None) -> None:
        try:
            self._library = ctypes.CDLL(library or LIBRARY)
            for name, arguments in PROTOTYPES.items():
                function = getattr(self._library, name)
                function.argtypes, function.restype = arguments, c_int
        except (OSError, AttributeError) as error:
            raise HostError(
                f"The NVIDIA driver cannot be opened ({error}).",
                "Install a driver; test with nvidia-smi.",
            ) from None
        self.call("cuInit", 0)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of `PROTOTYPES`; raises HostError unless it succeeds."""
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            text = c_char_p()
            self._library.cuGetErrorString(status, ctypes.byref(text))
            reason = (text.value or b"unknown error").decode()
            raise HostError(f"CUDA refused {name}: {reason} (code {status}).", "See: nvidia-smi")

    def number(self, name: str, *arguments: int) -> int:
        """Call a function whose first argument receives an int; returns that int."""
        value = c_int()
        self.call(name, ctypes.byref(value), *arguments)
        return value.value

    def handle(self, name: str, *arguments: Any) -> int:
        """Call a function whose first argument receives a pointer or handle; returns it."""
        value = PROTOTYPES[name][0]._type_()
        self.call(name, ctypes.byref(value), *arguments)
        return int(value.value or 0)

    def properties(self, index: int = 0) -> DeviceProperties:
        """Return what GPU `index` is; raises HostError when there is none."""
        count = self.number("cuDeviceGetCount")
        if index >= count:
            raise HostError(
                f"GPU {index} was asked for; the driver shows {count}.", "See: nvidia-smi"
            )
        device = self.number("cuDeviceGet", index)
        name = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", name, len(name), device)
        major, minor = (self.number("cuDeviceGetAttribute", a, device) for a in (_MAJOR, _MINOR))
        version = self.number("cuDriverGetVersion")
        driver = f"{version // 1000}.{version % 1000 // 10}"
        return DeviceProperties(index, name.value.decode(), f"{major}.{minor}", driver)


def device_properties(index: int = 0) -> DeviceProperties:
    """Return what GPU `index` is; raises HostError when there is no driver or no such GPU."""
    return Driver().properties(index)


def why_unusable(index: int = 0) -> str:
    """Return why GPU `index` cannot be used, in a few words; empty when it can."""
    try:
        device_properties(index)
    except HostError as error:
        return error.message.rstrip(".")
    return ""


class Gpu:
    """Memory, one stream and graphs on one GPU; everything is freed by `close`.

    A context is current per thread, so each public method of a session starts with `activate`.
    """

    def __init__(self, index: int = 0, driver: Driver | None = None) -> None:
        self._driver = driver or Driver()
        self.properties = self._driver.properties(index)
        self._device = self._driver.number("cuDeviceGet", index)
        self._context = self._driver.handle("cuDevicePrimaryCtxRetain", self._device)
        self._undo: list[tuple[str, int]] = [("cuDevicePrimaryCtxRelease_v2", self._device)]
        try:
            self.activate()
            stream = self._driver.handle("cuStreamCreate", _NON_BLOCKING)
        except HostError:
            self.close()
            raise
        self.stream = self._keep("cuStreamDestroy_v2", stream)

    def _keep(self, undo: str, handle: int) -> int:
        self._undo.append((undo, handle))
        return handle

    def activate(self) -> None:
        """Make the context current in the calling thread."""
        self._driver.call("cuCtxSetCurrent", self._context)

    def device_buffer(self, size: int) -> int:
        """Allocate `size` bytes on the GPU; returns their address."""
        return self._keep("cuMemFree_v2", self._driver.handle("cuMemAlloc_v2", max(size, 1)))

    def pinned_array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """Allocate a page-locked array, which the GPU copies from and to without a detour."""
        size = int(np.prod(shape)) * dtype.itemsize
        address = self._keep(
            "cuMemFreeHost", self._driver.handle("cuMemAllocHost_v2", max(size, 1))
        )
        memory = (ctypes.c_uint8 * size).from_address(address)
        array: np.ndarray = np.frombuffer(memoryview(memory), dtype=dtype).reshape(shape)
        return array

    def upload(self, source: np.ndarray, target: int) -> None:
        """Queue a copy of a pinned array to device memory."""
        self._driver.call(
            "cuMemcpyHtoDAsync_v2", target, source.ctypes.data, source.nbytes, self.stream
        )

    def download(self, source: int, target: np.ndarray) -> None:
        """Queue a copy of device memory to a pinned array."""
        self._driver.call(
            "cuMemcpyDtoHAsync_v2", target.ctypes.data, source, target.nbytes, self.stream
        )

    def synchronise(self) -> None:
        """Wait until everything queued is done."""
        self._driver.call("cuStreamSynchronize", self.stream)

    @contextmanager
    def capture(self) -> Iterator[list[int]]:
        """Record what the block queues instead of running it.

        Yields:
            A list that holds the executable graph (for `launch`) once the block has ended.
        """
        self._driver.call("cuStreamBeginCapture_v2", self.stream, _THREAD_LOCAL)
        graph, recorded = c_void_p(), list[int]()
        try:
            try:
                yield recorded
            finally:
                # Also after a failure: a stream left in capture mode refuses everything else.
                self._driver.call("cuStreamEndCapture", self.stream, ctypes.byref(graph))
            executable = self._driver.handle("cuGraphInstantiateWithFlags", graph, 0)
            recorded.append(self._keep("cuGraphExecDestroy", executable))
        finally:
            if graph:
                self._driver.call("cuGraphDestroy", graph)

    def launch(self, executable: int) -> None:
        """Queue a recorded graph."""
        self._driver.call("cuGraphLaunch", executable, self.stream)

    def close(self) -> None:
        """Free everything, newest first; arrays from `pinned_array` must not be used afterwards."""
        if self._undo:
            self.activate()
        while self._undo:
            name, handle = self._undo.pop()
            self._driver.call(name, handle)
