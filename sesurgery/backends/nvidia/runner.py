"""Runs a serialised engine on a GPU, through the tensor-name API: no torch, no implicit context."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sesurgery.backends.base import Array, Runner
from sesurgery.backends.inputs import feeds as _feeds
from sesurgery.backends.inputs.feeds import OnDevice
from sesurgery.backends.nvidia.device import Device
from sesurgery.backends.nvidia.foreign import on_device
from sesurgery.backends.nvidia.loaded import Loaded, Shape
from sesurgery.backends.nvidia.nearest import nearest
from sesurgery.backends.nvidia.room import Room
from sesurgery.backends.nvidia.timings import Timings
from sesurgery.diagnostics import SesurgeryError, fail

EVENTS = 64
"""Runs that are put on the stream before their events are read: enough to keep a GPU busy, few enough to hold."""
Key = tuple[int, tuple[tuple[str, Shape, int], ...]]
"""What a captured graph is good for: a profile, and every tensor's shape and address."""


class NvidiaRunner(Runner):
    """One engine, one context, one stream; not for use from several threads at once.

    `another()` gives a second context of the same engine, for another thread. They may be closed in any order. With
    `cuda_graph` the second run on the same shapes is captured, and launched from then on. `weights` is an ONNX file
    whose weights the engine gets first.
    """

    def __init__(
        self,
        trt: ModuleType,
        name: str,
        plan: bytes,
        device: Device,
        *,
        cuda_graph: bool = True,
        version_compatible: bool = False,
        weights: Path | None = None,
    ) -> None:
        with device.active():
            loaded = Loaded(trt, name, plan, device, version_compatible, weights)
            try:
                self._start(loaded, cuda_graph)
            except BaseException:
                loaded.end()
                raise

    def another(self) -> NvidiaRunner:
        """A second context of this engine, with room and a stream of its own."""
        loaded, _ = self._opened()
        made = object.__new__(NvidiaRunner)
        with loaded.device.active():
            made._start(loaded, self._graphs)
        return made

    def _start(self, loaded: Loaded, cuda_graph: bool) -> None:
        self._graphs = cuda_graph
        self._notes: list[str] = []
        context = loaded.not_none(loaded.engine.create_execution_context(), "make room for the engine")
        self.inputs, self.outputs = loaded.inputs, loaded.outputs
        self._stream = loaded.device.stream()
        self._room = Room(loaded.device, self._stream)
        self._profile = 0
        self._last: Key | None = None
        self._captured: tuple[Key, int] | None = None
        self._loaded: Loaded | None = loaded
        self._context: Any = context
        loaded.enter(self)

    @property
    def engine(self) -> Any:
        """TensorRT's own engine (`ICudaEngine`), for what this class does not ask it; not to be used once closed."""
        return self._opened()[0].engine

    @property
    def context(self) -> Any:
        """TensorRT's own context (`IExecutionContext`), for the same."""
        self._opened()
        return self._context

    @property
    def notes(self) -> tuple[str, ...]:
        """What did not go as asked, such as a graph that could not be captured."""
        return tuple(self._notes)

    def infer(self, feeds: Mapping[str, Any]) -> dict[str, Array]:
        """Run once, on arrays of the host or the GPU (`__cuda_array_interface__`, DLPack); the answers are numpy's.

        Raises SE606 naming the tensor, its shape and the range it must lie in.
        """
        loaded, device = self._opened()
        with device.active(), self._settled(device):
            shapes, sources = self._stage(loaded, feeds)
            self._upload(device, sources)
            self._run(loaded)
            for name in shapes:
                self._room.download(name)
            device.synchronize(self._stream)
            types = {info.name: info.dtype for info in self.outputs}
            # Copies: the next run writes to the same place.
            return {name: self._room.array(name, shape, types[name]).copy() for name, shape in shapes.items()}

    def time(self, feeds: Mapping[str, Any], repeats: int) -> NDArray[np.float64]:
        """GPU time between events around each run; the feeds are on the device before the first."""
        loaded, device = self._opened()
        samples = np.empty(repeats, np.float64)
        with device.active(), self._settled(device), device.events(2 * min(EVENTS, repeats)) as events:
            self._warm_up(loaded, feeds)
            for first in range(0, repeats, EVENTS):
                count = min(EVENTS, repeats - first)
                for index in range(count):
                    device.record(events[2 * index], self._stream)
                    self._run(loaded)
                    device.record(events[2 * index + 1], self._stream)
                device.synchronize(self._stream)
                for index in range(count):
                    samples[first + index] = device.seconds_between(events[2 * index], events[2 * index + 1])
        return samples

    def timings(self, feeds: Mapping[str, Any], repeats: int) -> Timings:
        """Each run with its copies, one after the other; in parts, and what the host took to start it."""
        loaded, device = self._opened()
        parts = np.empty((3, repeats), np.float64)
        enqueue = np.empty(repeats, np.float64)
        with device.active(), self._settled(device), device.events(4) as events:
            shapes, sources = self._warm_up(loaded, feeds)
            begin = time.perf_counter()
            for index in range(repeats):
                device.record(events[0], self._stream)
                self._upload(device, sources)
                device.record(events[1], self._stream)
                started = time.perf_counter()
                self._run(loaded)
                enqueue[index] = time.perf_counter() - started
                device.record(events[2], self._stream)
                for name in shapes:
                    self._room.download(name)
                device.record(events[3], self._stream)
                device.synchronize(self._stream)
                for part in range(3):
                    parts[part, index] = device.seconds_between(events[part], events[part + 1])
            wall = time.perf_counter() - begin
        return Timings(parts[0], parts[1], parts[2], enqueue, wall, self._captured is not None)

    def layers(self) -> str:
        """What the inspector tells of the engine's layers, as JSON."""
        loaded, device = self._opened()
        with device.active():
            return loaded.layers()

    def close(self) -> None:
        loaded = getattr(self, "_loaded", None)
        if loaded is None:
            return
        self._loaded = None
        device = loaded.device
        # In this order: a graph and a context outlive neither the memory they write to nor their engine.
        with contextlib.suppress(Exception), device.active():
            with contextlib.suppress(Exception):
                device.synchronize(self._stream)
            if self._captured is not None:
                device.forget_graph(self._captured[1])
            self._context = None
            self._room.give_back()
            device.forget_stream(self._stream)
        self._context = None
        self._room.forget()
        loaded.leave()

    def __del__(self) -> None:
        self.close()

    @contextlib.contextmanager
    def _settled(self, device: Device) -> Iterator[None]:
        """Nothing is under way when a run fails: its buffers are used again."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(Exception):
                device.synchronize(self._stream)
            raise

    def _warm_up(self, loaded: Loaded, feeds: Mapping[str, Any]) -> tuple[dict[str, Shape], Mapping[str, Any]]:
        """Feeds on the device, and all that happens only once done: kernels loaded, the graph captured."""
        staged = self._stage(loaded, feeds)
        self._upload(loaded.device, staged[1])
        for _ in range(2 if self._graphs else 1):
            self._run(loaded)
        loaded.device.synchronize(self._stream)
        return staged

    def _stage(
        self, loaded: Loaded, feeds: Mapping[str, Any]
    ) -> tuple[dict[str, Shape], Mapping[str, Array | OnDevice]]:
        """Tell the context all shapes and where everything lies; gives the outputs' shapes, and the feeds checked."""
        sources = {name: on_device(name, feed) or feed for name, feed in feeds.items()}
        only = (
            {name: (low, high) for name, (low, _, high) in loaded.bounds[0].items()}
            if len(loaded.bounds) == 1
            else None
        )
        _feeds.fit(self.inputs, sources, only)
        self._choose_profile(loaded, {name: tuple(feed.shape) for name, feed in sources.items()})
        for name, feed in sources.items():
            done = self._context.set_input_shape(name, tuple(feed.shape))
            loaded.require(done, f"take shape {list(feed.shape)} for {name!r}")
        if missing := self._context.infer_shapes():
            raise fail("SE606", f"{loaded.name} cannot tell its shapes without {', '.join(missing)}")
        shapes = {}
        for info in self.outputs:
            shapes[info.name] = tuple(self._context.get_tensor_shape(info.name))
            if -1 in shapes[info.name]:
                raise fail("SE603", f"the shape of {info.name!r} depends on the data, which is not supported")
        used = [(name, tuple(feed.shape), feed.nbytes) for name, feed in sources.items()]
        for info in self.outputs:
            size = math.prod(shapes[info.name]) * np.dtype(info.dtype).itemsize
            used.append((info.name, shapes[info.name], size))
        for name, _, size in used:
            address = self._room.reserve(name, size)
            loaded.require(self._context.set_tensor_address(name, address), f"take an address for {name!r}")
        self._key: Key = (self._profile, tuple((name, shape, self._room.address(name)) for name, shape, _ in used))
        for name, feed in sources.items():
            if isinstance(feed, np.ndarray):
                self._room.array(name, feed.shape, feed.dtype)[...] = feed
        return shapes, sources

    def _upload(self, device: Device, sources: Mapping[str, Array | OnDevice]) -> None:
        for name, feed in sources.items():
            if isinstance(feed, OnDevice):
                # Copied, not used where it lies: a captured graph holds addresses, and TensorRT wants aligned ones.
                if feed.stream is not None:
                    device.wait_for(feed.stream)
                device.copy(self._room.address(name), feed.address, feed.nbytes, self._stream)
            else:
                self._room.upload(name)

    def _choose_profile(self, loaded: Loaded, shapes: Mapping[str, Shape]) -> None:
        number = nearest(shapes, loaded.bounds)
        if number != self._profile:
            done = self._context.set_optimization_profile_async(number, self._stream)
            loaded.require(done, f"take profile {number + 1}")
            loaded.device.synchronize(self._stream)
            self._profile = number

    def _run(self, loaded: Loaded) -> None:
        """One run of what was staged: plain at first, captured at the second time, launched from then on."""
        device, key = loaded.device, self._key
        if self._captured is not None and self._captured[0] != key:
            device.synchronize(self._stream)
            device.forget_graph(self._captured[1])
            self._captured = None
        if self._graphs and self._captured is None and self._last == key:
            self._capture(loaded)
        if self._captured is not None:
            device.launch(self._captured[1], self._stream)
        else:
            self._enqueue(loaded)
        self._last = key

    def _capture(self, loaded: Loaded) -> None:
        device = loaded.device
        # Only TensorRT-RTX can tell: it may still be compiling a kernel for these shapes, and will not be later.
        capturable = getattr(self._context, "is_stream_capturable", None)
        if capturable is not None and not capturable(self._stream):
            return
        device.begin_capture(self._stream)
        try:
            self._enqueue(loaded)
            graph = device.end_capture(self._stream)
        except SesurgeryError as error:
            device.abandon_capture(self._stream)
            self._graphs = False
            self._notes.append(f"no CUDA graph: {error.diagnostics[0].message}")
            return
        self._captured = (self._key, graph)

    def _enqueue(self, loaded: Loaded) -> None:
        loaded.require(self._context.execute_async_v3(self._stream), "run")

    def _opened(self) -> tuple[Loaded, Device]:
        if self._loaded is None:
            raise fail("SE603", "the engine was closed", "use a runner inside its `with` block")
        return self._loaded, self._loaded.device
