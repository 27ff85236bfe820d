"""A deserialised engine shared by its runners: inputs, outputs and lifetime."""

from __future__ import annotations

import atexit
import weakref
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from sesurgery.backends.base import TensorInfo
from sesurgery.backends.nvidia import messages, refit
from sesurgery.backends.nvidia.device import Device
from sesurgery.diagnostics import fail

if TYPE_CHECKING:
    from sesurgery.backends.nvidia.runner import NvidiaRunner

Shape = tuple[int, ...]
Bounds = tuple[Shape, Shape, Shape]
"""Smallest, tuned for, largest."""


class Loaded:
    """A deserialised engine and its device, which end with the last runner that uses them, or with the program.

    `weights` is an ONNX file whose weights it gets first. Where that fails the engine is gone, and the device is not.
    """

    def __init__(
        self,
        trt: ModuleType,
        name: str,
        plan: bytes,
        device: Device,
        version_compatible: bool,
        weights: Path | None = None,
    ) -> None:
        self.name = name
        self.device = device
        self._users = 0
        self._runners: weakref.WeakSet[NvidiaRunner] = weakref.WeakSet()
        self._trt = trt
        self._log = messages.listen(trt)
        self._runtime: Any = trt.Runtime(self._log.logger)
        if version_compatible:
            # Such an engine brings its own runtime along, which is code.
            self._runtime.engine_host_code_allowed = True
        self.engine: Any = None
        try:
            self.engine = self.not_none(self._runtime.deserialize_cuda_engine(plan), "load the engine")
            if weights is not None:
                refit.put_weights(trt, self, weights)
            self._describe(trt)
        except BaseException:
            # An error holds on to this object for as long as it is looked at.
            self.forget()
            raise
        # Registered after pycuda's own clean-up, so run before it: TensorRT's objects must die before the context.
        atexit.register(self.end)

    def _describe(self, trt: ModuleType) -> None:
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        modes = {tensor: self.engine.get_tensor_mode(tensor) for tensor in names}
        fed = [tensor for tensor in names if modes[tensor] == trt.TensorIOMode.INPUT]
        infos = {tensor: self._info(tensor, alone=len(fed) == 1 or tensor not in fed) for tensor in names}
        self.inputs = tuple(infos[tensor] for tensor in fed)
        self.outputs = tuple(infos[tensor] for tensor in names if modes[tensor] == trt.TensorIOMode.OUTPUT)
        self.bounds = tuple(
            {tensor: self._bounds(tensor, number) for tensor in fed}
            for number in range(max(1, self.engine.num_optimization_profiles))
        )

    def enter(self, runner: NvidiaRunner) -> None:
        self._users += 1
        self._runners.add(runner)

    def leave(self) -> None:
        """Remove a runner; with the last one, engine and device are freed."""
        self._users -= 1
        if self._users <= 0:
            self.end()

    def end(self) -> None:
        for runner in tuple(self._runners):
            self._runners.discard(runner)
            runner.close()
        self.forget()
        self.device.close()

    def forget(self) -> None:
        """Free the engine but not the device."""
        self.engine = None
        self._runtime = None
        atexit.unregister(self.end)

    @property
    def logger(self) -> Any:
        return self._log.logger

    def recent_errors(self) -> tuple[str, ...]:
        """The errors that the library logged since the last successful call."""
        return tuple(self._log.errors)

    def layers(self) -> str:
        inspector = self.engine.create_engine_inspector()
        return str(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))

    def not_none(self, made: Any, what: str) -> Any:
        self.require(made is not None, what)
        return made

    def require(self, done: bool, what: str) -> None:
        """Raise where TensorRT returned False or None, with the reason from its logger."""
        if not done:
            words = "; ".join(self._log.errors) or "no reason given"
            self._log.errors.clear()
            raise fail("SE603", f"{self.name} cannot {what}: {words}")
        # Earlier messages are about something else, such as a failed build.
        self._log.errors.clear()

    def _bounds(self, tensor: str, profile: int) -> Bounds:
        shape = tuple(self.engine.get_tensor_shape(tensor))
        if -1 not in shape:
            return shape, shape, shape
        smallest, best, largest = self.engine.get_tensor_profile_shape(tensor, profile)
        return tuple(smallest), tuple(best), tuple(largest)

    def _info(self, tensor: str, *, alone: bool) -> TensorInfo:
        if self.engine.get_tensor_location(tensor) != self._trt.TensorLocation.DEVICE:
            raise fail("SE603", f"{tensor!r} is read or written on the host, which is not supported")
        shape = tuple(self.engine.get_tensor_shape(tensor))
        # An engine does not keep the names that dimensions have in the ONNX file; those of two inputs may differ.
        words = [("batch" if axis == 0 else f"dim{axis}") for axis in range(len(shape))]
        dims = tuple(
            dim if dim != -1 else word if alone else f"{tensor}.{word}" for dim, word in zip(shape, words, strict=True)
        )
        dtype = self.engine.get_tensor_dtype(tensor)
        try:
            return TensorInfo(tensor, dims, np.dtype(self._trt.nptype(dtype)).name)
        except TypeError:
            raise fail("SE603", f"{tensor!r} is {dtype.name.lower()}, which numpy does not have") from None
