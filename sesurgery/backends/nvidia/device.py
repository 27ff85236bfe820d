"""The GPU interface of runners: memory, streams, events and graphs, through pycuda or cuda-bindings, without torch."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, final

from sesurgery.backends.base import Array


class Device(ABC):
    """One GPU in its primary context, the one that torch and TensorRT use; whatever is held is given back by `close`.

    Addresses and streams are numbers, as TensorRT takes them. Copies and records are put on a stream and happen later:
    what they read and write must live until the stream was synchronised. Adapters write the methods that begin with an
    underscore; all calls go between `active()` and its end.
    """

    def __init__(self) -> None:
        self._memory: dict[int, Any] = {}
        self._pinned: dict[int, Any] = {}
        self._streams: dict[int, Any] = {}
        self._events: dict[int, Any] = {}
        self._graphs: dict[int, Any] = {}
        self._open = True

    @abstractmethod
    def active(self) -> AbstractContextManager[None]:
        """Make the context current on this thread for the time of the block."""

    @final
    def allocate(self, size: int) -> int:
        """The address of so many bytes on the GPU."""
        # An address is wanted for an empty tensor, too.
        made = self._allocate(max(size, 1))
        self._memory[int(made)] = made
        return int(made)

    @final
    def free(self, address: int) -> None:
        self._free(self._memory.pop(address))

    @final
    def pin(self, size: int) -> Array:
        """So many bytes on the host that the GPU can copy by itself while the program goes on."""
        array, made = self._pin(max(size, 1))
        self._pinned[array.ctypes.data] = made
        return array

    @final
    def unpin(self, array: Array) -> None:
        self._unpin(self._pinned.pop(array.ctypes.data))

    @final
    def stream(self) -> int:
        """A stream that does not wait for the default one, on which TensorRT would synchronise the device."""
        handle, made = self._stream()
        self._streams[handle] = made
        return handle

    @final
    def forget_stream(self, stream: int) -> None:
        self._forget_stream(self._streams.pop(stream))

    @final
    def event(self) -> int:
        """A CUDA event, to be recorded on a stream; returns its handle."""
        made = self._event()
        self._events[id(made)] = made
        return id(made)

    @final
    def forget_event(self, event: int) -> None:
        self._forget_event(self._events.pop(event))

    @final
    @contextlib.contextmanager
    def events(self, count: int) -> Iterator[list[int]]:
        """So many events, forgotten at the end of the block."""
        made: list[int] = []
        try:
            made.extend(self.event() for _ in range(count))
            yield made
        finally:
            for event in made:
                self.forget_event(event)

    @final
    def record(self, event: int, stream: int) -> None:
        self._record(self._events[event], self._streams[stream])

    @final
    def seconds_between(self, start: int, end: int) -> float:
        """Both events must have happened: synchronise first."""
        return self._milliseconds(self._events[start], self._events[end]) * 1e-3

    @final
    def upload(self, address: int, array: Array, stream: int) -> None:
        """Host to device; `array` is pinned."""
        self._upload(address, array, self._streams[stream])

    @final
    def download(self, array: Array, address: int, stream: int) -> None:
        """Device to host; `array` is pinned."""
        self._download(array, address, self._streams[stream])

    @final
    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        """Device to device; `source` may be memory that was not allocated here."""
        self._copy(target, source, size, self._streams[stream])

    @final
    def synchronize(self, stream: int) -> None:
        """Wait until all work on the stream has finished; raises SE603 if something on it failed."""
        self._synchronize(self._streams[stream])

    @abstractmethod
    def wait_for(self, stream: int) -> None:
        """Wait until a stream that was not made here has finished."""

    @abstractmethod
    def begin_capture(self, stream: int) -> None:
        """Start capturing work on the stream instead of running it."""

    @final
    def end_capture(self, stream: int) -> int:
        """The captured work as a graph that can be launched."""
        made = self._end_capture(stream)
        self._graphs[int(made)] = made
        return int(made)

    @final
    def abandon_capture(self, stream: int) -> None:
        """End a capture that went wrong; the driver has broken it already, so its own complaint is no news."""
        with contextlib.suppress(Exception):
            self.forget_graph(self.end_capture(stream))

    @abstractmethod
    def launch(self, graph: int, stream: int) -> None:
        """Put a graph on the stream."""

    @final
    def forget_graph(self, graph: int) -> None:
        self._forget_graph(self._graphs.pop(graph))

    @final
    def close(self) -> None:
        """Free everything, users before what they use; calling it twice does nothing."""
        if not self._open:
            return
        self._open = False
        # After a failed kernel every call fails; what caused it has been raised already.
        with contextlib.suppress(Exception), self.active():
            for made in self._streams.values():
                with contextlib.suppress(Exception):
                    self._synchronize(made)
            for held, give_back in (
                (self._graphs, self._forget_graph),
                (self._events, self._forget_event),
                (self._pinned, self._unpin),
                (self._memory, self._free),
                (self._streams, self._forget_stream),
            ):
                while held:
                    with contextlib.suppress(Exception):
                        give_back(held.popitem()[1])
        self._leave()

    @abstractmethod
    def _allocate(self, size: int) -> Any: ...

    @abstractmethod
    def _free(self, made: Any) -> None: ...

    @abstractmethod
    def _pin(self, size: int) -> tuple[Array, Any]: ...

    @abstractmethod
    def _unpin(self, made: Any) -> None: ...

    @abstractmethod
    def _stream(self) -> tuple[int, Any]: ...

    @abstractmethod
    def _forget_stream(self, made: Any) -> None: ...

    @abstractmethod
    def _event(self) -> Any: ...

    @abstractmethod
    def _forget_event(self, made: Any) -> None: ...

    @abstractmethod
    def _record(self, event: Any, stream: Any) -> None: ...

    @abstractmethod
    def _milliseconds(self, start: Any, end: Any) -> float: ...

    @abstractmethod
    def _upload(self, address: int, array: Array, stream: Any) -> None: ...

    @abstractmethod
    def _download(self, array: Array, address: int, stream: Any) -> None: ...

    @abstractmethod
    def _copy(self, target: int, source: int, size: int, stream: Any) -> None: ...

    @abstractmethod
    def _synchronize(self, stream: Any) -> None: ...

    @abstractmethod
    def _end_capture(self, stream: int) -> Any: ...

    @abstractmethod
    def _forget_graph(self, made: Any) -> None: ...

    @abstractmethod
    def _leave(self) -> None:
        """Release the context."""
