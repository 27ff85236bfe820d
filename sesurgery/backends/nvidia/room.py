"""Where a runner's tensors lie: each with memory on the GPU, and with pinned memory of the same size on the host."""

from __future__ import annotations

from typing import Any

from sesurgery.backends.base import Array
from sesurgery.backends.nvidia.device import Device
from sesurgery.backends.nvidia.loaded import Shape


class Room:
    """The memory of tensors by name, copied on one stream. What is large enough stays where it is.

    All but `forget` is called while the device is active.
    """

    def __init__(self, device: Device, stream: int) -> None:
        self._device = device
        self._stream = stream
        self._memory: dict[str, tuple[int, int]] = {}
        self._pinned: dict[str, Array] = {}
        self._host: dict[str, Array] = {}

    def reserve(self, name: str, size: int) -> int:
        """Room for so many bytes of a tensor on the GPU and on the host; its address on the GPU."""
        device = self._device
        address, capacity = self._memory.get(name, (0, -1))
        if size > capacity:
            if capacity >= 0:
                device.synchronize(self._stream)
                # Forgotten before it is freed: nothing may be freed twice when the next step fails.
                del self._memory[name]
                device.free(address)
            address = device.allocate(size)
            self._memory[name] = (address, size)
        pinned = self._pinned.get(name)
        if pinned is None or pinned.nbytes < size:
            if pinned is not None:
                device.synchronize(self._stream)
                device.unpin(self._pinned.pop(name))
            pinned = self._pinned[name] = device.pin(size)
        self._host[name] = pinned[:size]
        return address

    def address(self, name: str) -> int:
        """Where a tensor lies on the GPU."""
        return self._memory[name][0]

    def array(self, name: str, shape: Shape, dtype: Any) -> Array:
        """A tensor's bytes on the host as an array that reads and writes them."""
        array: Array = self._host[name].view(dtype).reshape(shape)
        return array

    def upload(self, name: str) -> None:
        """Put the copy from the host to the GPU on the stream."""
        self._device.upload(self.address(name), self._host[name], self._stream)

    def download(self, name: str) -> None:
        """Put the copy from the GPU to the host on the stream."""
        self._device.download(self._host[name], self.address(name), self._stream)

    def give_back(self) -> None:
        """Free all of it; raises what the driver does, and the rest stays with the device until that is closed."""
        for address, _ in self._memory.values():
            self._device.free(address)
        for array in self._pinned.values():
            self._device.unpin(array)

    def forget(self) -> None:
        """Hold nothing any more."""
        self._memory.clear()
        self._pinned.clear()
        self._host.clear()
