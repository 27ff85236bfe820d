"""A GPU through pycuda, in the primary context, and graphs, which pycuda does not have, through the driver's own calls.

`pycuda.autoinit` would make a second context beside TensorRT's and torch's, where the addresses of one mean nothing in
the other.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from sesurgery.backends.base import Array
from sesurgery.backends.nvidia import libcuda
from sesurgery.backends.nvidia.device import Device
from sesurgery.diagnostics import fail

MODULE = "pycuda.driver"
CONTEXT = "pycuda.autoprimaryctx"
NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING"""


class PycudaDevice(Device):
    """The device that pycuda takes by default: the environment's CUDA_DEVICE, ~/.cuda_device, or the first."""

    def __init__(self) -> None:
        super().__init__()
        # Its context stays until the program ends: pycuda gives it back itself.
        self._context = importlib.import_module(CONTEXT).context
        self._cuda = importlib.import_module(MODULE)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        # Where pycuda was imported it is current already; another thread has its own stack of contexts.
        if self._cuda.Context.get_current() == self._context:
            with self._errors():
                yield
            return
        with self._errors():
            self._context.push()
            try:
                yield
            finally:
                self._cuda.Context.pop()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._cuda.Error as error:
            raise fail("SE603", f"CUDA: {error}") from error

    def wait_for(self, stream: int) -> None:
        libcuda.wait(stream)

    def begin_capture(self, stream: int) -> None:
        libcuda.begin_capture(stream)

    def launch(self, graph: int, stream: int) -> None:
        libcuda.launch(graph, stream)

    def _allocate(self, size: int) -> Any:
        return self._cuda.mem_alloc(size)

    def _free(self, made: Any) -> None:
        made.free()

    def _pin(self, size: int) -> tuple[Array, Any]:
        array = self._cuda.pagelocked_empty(size, np.uint8)
        return array, array

    def _unpin(self, made: Any) -> None:
        made.base.free()

    def _stream(self) -> tuple[int, Any]:
        made = self._cuda.Stream(NON_BLOCKING)
        return int(made.handle), made

    def _forget_stream(self, made: Any) -> None:
        """pycuda gives a stream back when nothing refers to it any more."""

    def _event(self) -> Any:
        return self._cuda.Event()

    def _forget_event(self, made: Any) -> None:
        """As a stream."""

    def _record(self, event: Any, stream: Any) -> None:
        event.record(stream)

    def _milliseconds(self, start: Any, end: Any) -> float:
        return float(start.time_till(end))

    def _upload(self, address: int, array: Array, stream: Any) -> None:
        self._cuda.memcpy_htod_async(address, array, stream)

    def _download(self, array: Array, address: int, stream: Any) -> None:
        self._cuda.memcpy_dtoh_async(array, address, stream)

    def _copy(self, target: int, source: int, size: int, stream: Any) -> None:
        self._cuda.memcpy_dtod_async(target, source, size, stream)

    def _synchronize(self, stream: Any) -> None:
        stream.synchronize()

    def _end_capture(self, stream: int) -> Any:
        return libcuda.instantiate(libcuda.end_capture(stream))

    def _forget_graph(self, made: Any) -> None:
        libcuda.forget_graph(made)

    def _leave(self) -> None:
        """pycuda keeps the context until the program ends."""
