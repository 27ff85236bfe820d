"""Runs a serialised engine on a GPU, through the tensor-name API: no torch, no implicit context."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sesurgery.backends import _feeds
from sesurgery.backends._nvidia import messages
from sesurgery.backends._nvidia.cuda import Cuda
from sesurgery.backends.base import Array, Runner, TensorInfo
from sesurgery.diagnostics import fail

EVENTS = 64
"""Runs that are put on the stream before their events are read: enough to keep a GPU busy, few enough to hold."""


class NvidiaRunner(Runner):
    """One engine, one context, one stream; not for use from several threads at once."""

    def __init__(self, trt: ModuleType, name: str, plan: bytes, cuda: Cuda) -> None:
        self._trt = trt
        self._name = name
        self._cuda: Cuda | None = cuda
        self._log = messages.collector(trt)
        self._runtime = trt.Runtime(self._log)
        self._engine = self._must(self._runtime.deserialize_cuda_engine(plan), "load the engine")
        self._context = self._must(self._engine.create_execution_context(), "make room for the engine")
        self._room: dict[str, tuple[int, int]] = {}
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        infos = {name: self._info(name) for name in names}
        modes = {name: self._engine.get_tensor_mode(name) for name in names}
        self.inputs = tuple(infos[name] for name in names if modes[name] == trt.TensorIOMode.INPUT)
        self.outputs = tuple(infos[name] for name in names if modes[name] == trt.TensorIOMode.OUTPUT)
        self._bounds: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
        for info in self.inputs:
            smallest, _, largest = self._engine.get_tensor_profile_shape(info.name, 0)
            self._bounds[info.name] = (tuple(smallest), tuple(largest))

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        cuda = self._open()
        results = self._stage(cuda, feeds)
        self._enqueue(cuda)
        for name, array in results.items():
            cuda.download(array, self._room[name][0])
        cuda.synchronize()
        return results

    def time(self, feeds: Mapping[str, Array], repeats: int) -> NDArray[np.float64]:
        """GPU time between events around each run; the feeds are on the device before the first."""
        cuda = self._open()
        self._stage(cuda, feeds)
        self._enqueue(cuda)
        cuda.synchronize()
        samples = np.empty(repeats, np.float64)
        events = [(cuda.event(), cuda.event()) for _ in range(min(EVENTS, repeats))]
        try:
            for first in range(0, repeats, EVENTS):
                batch = events[: repeats - first]
                for start, end in batch:
                    cuda.record(start)
                    self._enqueue(cuda)
                    cuda.record(end)
                cuda.synchronize()
                for index, (start, end) in enumerate(batch):
                    samples[first + index] = cuda.seconds_between(start, end)
        finally:
            for pair in events:
                for event in pair:
                    cuda.forget(event)
        return samples

    def close(self) -> None:
        if self._cuda is None:
            return
        cuda, self._cuda = self._cuda, None
        # In this order: a context outlives neither its engine nor the memory it was told to write to.
        self._context = None
        self._engine = None
        self._runtime = None
        self._room.clear()
        cuda.close()

    def _stage(self, cuda: Cuda, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Put the feeds on the device, tell the context where everything lies, give the arrays for the outputs."""
        checked = _feeds.check(self.inputs, feeds, self._bounds)
        for name, array in checked.items():
            self._yes(self._context.set_input_shape(name, array.shape), f"take shape {array.shape} for {name!r}")
        if missing := self._context.infer_shapes():
            raise fail("SE606", f"{self._name} cannot tell its shapes without {', '.join(missing)}")
        results = {
            info.name: np.empty(tuple(self._context.get_tensor_shape(info.name)), info.dtype) for info in self.outputs
        }
        for name, array in {**checked, **results}.items():
            address = self._reserve(cuda, name, array.nbytes)
            self._yes(self._context.set_tensor_address(name, address), f"take an address for {name!r}")
        for name, array in checked.items():
            cuda.upload(self._room[name][0], array)
        return results

    def _reserve(self, cuda: Cuda, name: str, size: int) -> int:
        address, capacity = self._room.get(name, (0, -1))
        if size > capacity:
            if capacity >= 0:
                cuda.synchronize()
                del self._room[name]
                cuda.free(address)
            # An address is wanted for an empty tensor, too.
            address = cuda.allocate(max(size, 1))
            self._room[name] = (address, size)
        return address

    def _enqueue(self, cuda: Cuda) -> None:
        self._yes(self._context.execute_async_v3(cuda.stream), "run")

    def _info(self, name: str) -> TensorInfo:
        shape = tuple(self._engine.get_tensor_shape(name))
        # Only the batch is dynamic: build refuses anything else.
        dims = tuple(("batch" if axis == 0 else f"dim{axis}") if dim == -1 else dim for axis, dim in enumerate(shape))
        dtype = self._engine.get_tensor_dtype(name)
        try:
            return TensorInfo(name, dims, np.dtype(self._trt.nptype(dtype)).name)
        except TypeError:
            raise fail("SE603", f"{name!r} is {dtype.name.lower()}, which numpy does not have") from None

    def _must(self, made: Any, what: str) -> Any:
        self._yes(made is not None, what)
        return made

    def _yes(self, done: bool, what: str) -> None:
        """TensorRT answers False or None and tells the reason to its logger only."""
        if not done:
            words = "; ".join(self._log.errors) or "no reason given"
            self._log.errors.clear()
            raise fail("SE603", f"{self._name} cannot {what}: {words}")

    def _open(self) -> Cuda:
        if self._cuda is None:
            raise fail("SE603", "the engine was closed", "use a runner inside its `with` block")
        return self._cuda
