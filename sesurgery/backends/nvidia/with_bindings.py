"""A GPU through cuda-bindings, NVIDIA's own package, which comes with torch and imports without a GPU."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from sesurgery.backends.base import Array
from sesurgery.backends.nvidia import libcuda
from sesurgery.backends.nvidia.device import Device
from sesurgery.diagnostics import fail

MODULE = "cuda.bindings.driver"


class BindingsDevice(Device):
    """The device of the calling thread, or the first one."""

    def __init__(self) -> None:
        super().__init__()
        self._cuda = importlib.import_module(MODULE)
        # Says in a sentence if there is no driver; the package would raise what is its own.
        libcuda.call("cuInit", 0)
        self._device = self.call("cuDeviceGet", libcuda.current_device())
        self._context = self.call("cuDevicePrimaryCtxRetain", self._device)

    def call(self, function: str, *arguments: Any) -> Any:
        """The result of a driver function; raises SE603 with CUDA's words where it fails."""
        status, *results = getattr(self._cuda, function)(*arguments)
        if status != self._cuda.CUresult.CUDA_SUCCESS:
            _, text = self._cuda.cuGetErrorString(status)
            raise fail("SE603", f"{function}: {(text or b'unknown').decode()} ({status.name})")
        return results[0] if results else None

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        self.call("cuCtxPushCurrent", self._context)
        try:
            yield
        finally:
            self.call("cuCtxPopCurrent")

    def wait_for(self, stream: int) -> None:
        self.call("cuStreamSynchronize", stream)

    def begin_capture(self, stream: int) -> None:
        mode = self._cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self.call("cuStreamBeginCapture", stream, mode)

    def launch(self, graph: int, stream: int) -> None:
        self.call("cuGraphLaunch", self._graphs[graph], stream)

    def _allocate(self, size: int) -> Any:
        return self.call("cuMemAlloc", size)

    def _free(self, made: Any) -> None:
        self.call("cuMemFree", made)

    def _pin(self, size: int) -> tuple[Array, Any]:
        address = int(self.call("cuMemHostAlloc", size, 0))
        return np.ctypeslib.as_array((ctypes.c_ubyte * size).from_address(address)), address

    def _unpin(self, made: Any) -> None:
        self.call("cuMemFreeHost", made)

    def _stream(self) -> tuple[int, Any]:
        made = self.call("cuStreamCreate", self._cuda.CUstream_flags.CU_STREAM_NON_BLOCKING)
        return int(made), made

    def _forget_stream(self, made: Any) -> None:
        self.call("cuStreamDestroy", made)

    def _event(self) -> Any:
        return self.call("cuEventCreate", self._cuda.CUevent_flags.CU_EVENT_DEFAULT)

    def _forget_event(self, made: Any) -> None:
        self.call("cuEventDestroy", made)

    def _record(self, event: Any, stream: Any) -> None:
        self.call("cuEventRecord", event, stream)

    def _milliseconds(self, start: Any, end: Any) -> float:
        return float(self.call("cuEventElapsedTime", start, end))

    def _upload(self, address: int, array: Array, stream: Any) -> None:
        self.call("cuMemcpyHtoDAsync", address, array.ctypes.data, array.nbytes, stream)

    def _download(self, array: Array, address: int, stream: Any) -> None:
        self.call("cuMemcpyDtoHAsync", array.ctypes.data, address, array.nbytes, stream)

    def _copy(self, target: int, source: int, size: int, stream: Any) -> None:
        self.call("cuMemcpyDtoDAsync", target, source, size, stream)

    def _synchronize(self, stream: Any) -> None:
        self.call("cuStreamSynchronize", stream)

    def _end_capture(self, stream: int) -> Any:
        graph = self.call("cuStreamEndCapture", stream)
        try:
            return self.call("cuGraphInstantiate", graph, 0)
        finally:
            self.call("cuGraphDestroy", graph)

    def _forget_graph(self, made: Any) -> None:
        self.call("cuGraphExecDestroy", made)

    def _leave(self) -> None:
        with contextlib.suppress(Exception):
            self.call("cuDevicePrimaryCtxRelease", self._device)
