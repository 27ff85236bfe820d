"""The few CUDA runtime calls a runner needs, through cuda-bindings, which imports without a GPU and without torch."""

from __future__ import annotations

import contextlib
import importlib
from typing import Any

from sesurgery.backends.base import Array
from sesurgery.diagnostics import fail

MODULE = "cuda.bindings.runtime"
REMEDY = "an NVIDIA GPU with its driver, and: pip install cuda-bindings"


def obstacle() -> str | None:
    """Why CUDA cannot be used here, or None where it can; never raises."""
    try:
        runtime = importlib.import_module(MODULE)
    except ImportError as error:
        return f"cuda-bindings is not installed ({error})"
    try:
        status, version = runtime.cudaDriverGetVersion()
        if status == runtime.cudaError_t.cudaSuccess and version == 0:
            return "no CUDA driver: libcuda is not on this machine"
        status, count = runtime.cudaGetDeviceCount()
        if status != runtime.cudaError_t.cudaSuccess:
            return f"no CUDA device: {_words(runtime, status)}"
        return None if count else "no CUDA device: the driver lists none"
    except Exception as error:  # a broken driver is a reason like any other
        return f"no CUDA driver: {error}"


def device_name() -> str:
    """The GPU in use, with its compute capability and the driver's CUDA version."""
    cuda = Cuda()
    properties = cuda.call("cudaGetDeviceProperties", cuda.call("cudaGetDevice"))
    driver = cuda.call("cudaDriverGetVersion")
    name = properties.name.decode().rstrip("\0")
    return f"{name}, sm_{properties.major}{properties.minor}, CUDA {driver // 1000}.{driver % 1000 // 10}"


class Cuda:
    """Device memory, one stream and events; whatever is still held is given back by `close`."""

    def __init__(self) -> None:
        self._runtime = importlib.import_module(MODULE)
        self._buffers: set[int] = set()
        self._stream: Any = None

    def call(self, function: str, *arguments: Any) -> Any:
        """The result of a runtime function; raises SE603 with CUDA's words where it fails."""
        status, *results = getattr(self._runtime, function)(*arguments)
        if status != self._runtime.cudaError_t.cudaSuccess:
            raise fail("SE603", f"{function}: {_words(self._runtime, status)}")
        return results[0] if results else None

    @property
    def stream(self) -> int:
        """The handle of a stream that is not the default one, on which TensorRT would synchronise the device."""
        if self._stream is None:
            self._stream = self.call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking)
        return int(self._stream)

    def allocate(self, size: int) -> int:
        address = int(self.call("cudaMalloc", size))
        self._buffers.add(address)
        return address

    def free(self, address: int) -> None:
        self._buffers.discard(address)
        self.call("cudaFree", address)

    def upload(self, address: int, array: Array) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self.call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, self.stream)

    def download(self, array: Array, address: int) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self.call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, self.stream)

    def synchronize(self) -> None:
        self.call("cudaStreamSynchronize", self.stream)

    def event(self) -> Any:
        return self.call("cudaEventCreate")

    def record(self, event: Any) -> None:
        self.call("cudaEventRecord", event, self.stream)

    def seconds_between(self, start: Any, end: Any) -> float:
        """Both events must have happened: synchronise first."""
        return float(self.call("cudaEventElapsedTime", start, end)) * 1e-3

    def forget(self, event: Any) -> None:
        self.call("cudaEventDestroy", event)

    def close(self) -> None:
        # After a failed kernel every call fails; what caused it has been raised already.
        with contextlib.suppress(Exception):
            if self._stream is not None:
                self.synchronize()
        for address in tuple(self._buffers):
            with contextlib.suppress(Exception):
                self.free(address)
        if self._stream is not None:
            with contextlib.suppress(Exception):
                self.call("cudaStreamDestroy", self._stream)
            self._stream = None


def _words(runtime: Any, status: Any) -> str:
    _, text = runtime.cudaGetErrorString(status)
    return f"{text.decode()} ({status.name})"
