"""Runs an engine of OpenVINO on the CPU."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sesurgery.backends.base import Array, Runner
from sesurgery.backends.inputs import feeds as _feeds
from sesurgery.backends.openvino_engine.shapes import bounds, tensor_info
from sesurgery.diagnostics import fail


class Requests(Runner):
    """One compiled network with one request; not for use from several threads at once."""

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        self.inputs = tuple(tensor_info(port) for port in compiled.inputs)
        self.outputs = tuple(tensor_info(port) for port in compiled.outputs)
        self._bounds = {
            info.name: bounds(port.get_partial_shape()) for info, port in zip(self.inputs, compiled.inputs, strict=True)
        }

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        request = self._open()
        results = request.infer(_feeds.check(self.inputs, feeds, self._bounds), share_inputs=True)
        return {info.name: results[index] for index, info in enumerate(self.outputs)}

    def time(self, feeds: Mapping[str, Array], repeats: int) -> NDArray[np.float64]:
        request = self._open()
        tensor = importlib.import_module("openvino").Tensor
        # Bound once: later runs read these arrays and write where the first run wrote.
        for name, array in _feeds.check(self.inputs, feeds, self._bounds).items():
            request.set_tensor(name, tensor(array, shared_memory=True))
        request.infer(share_outputs=True)
        samples = np.empty(repeats, np.float64)
        for index in range(repeats):
            start = time.perf_counter_ns()
            request.infer(share_outputs=True)
            samples[index] = (time.perf_counter_ns() - start) * 1e-9
        return samples

    def close(self) -> None:
        self._request = None

    def _open(self) -> Any:
        if self._request is None:
            raise fail("SE603", "the engine was closed", "use a runner inside its `with` block")
        return self._request
