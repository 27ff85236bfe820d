"""An engine of ONNX Runtime, loaded."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from sesurgery.backends.base import Array, Runner, TensorInfo
from sesurgery.backends.inputs import feeds as _feeds
from sesurgery.backends.onnxruntime_graph.providers import CPU
from sesurgery.diagnostics import fail, first_line

ERRORS_ONLY = 3
DTYPES = {
    "float": "float32",
    "double": "float64",
    **{name: name for name in ("float16", "int8", "uint8", "int16", "int32", "int64", "bool")},
}


class Session(Runner):
    """The first of `providers` takes part, or it is SE603."""

    def __init__(self, engine: Path, threads: int | None, providers: Sequence[str] = (CPU,)) -> None:
        self._engine = engine
        options = session_options(threads)
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_DISABLE_ALL if providers[0] == CPU else levels.ORT_ENABLE_ALL
        try:
            self._session = onnxruntime.InferenceSession(str(engine), options, providers=list(providers))
        except Exception as error:
            raise fail("SE603", f"ONNX Runtime cannot load {engine}: {error}", "build the engine again here") from error
        if providers[0] not in (taken := self._session.get_providers()):
            text = f"ONNX Runtime fell back from {providers[0]} to {', '.join(taken)} for {engine}"
            raise fail("SE603", text, "its log says why: a missing CUDA, cuDNN or TensorRT library, or no GPU")
        self.inputs = tuple(_info(node) for node in self._session.get_inputs())
        self.outputs = tuple(_info(node) for node in self._session.get_outputs())

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        session = self._open()
        names = [info.name for info in self.outputs]
        checked = _feeds.check(self.inputs, feeds)
        with self._running():
            return dict(zip(names, session.run(names, checked), strict=True))

    def time(self, feeds: Mapping[str, Array], repeats: int) -> NDArray[np.float64]:
        session = self._open()
        checked = _feeds.check(self.inputs, feeds)
        samples = np.empty(repeats, np.float64)
        with self._running():
            binding = session.io_binding()
            for name, array in checked.items():
                binding.bind_cpu_input(name, array)
            # Bound to the buffers of a first run, later runs allocate nothing.
            for info in self.outputs:
                binding.bind_output(info.name)
            session.run_with_iobinding(binding)
            for info, value in zip(self.outputs, binding.get_outputs(), strict=True):
                binding.bind_ortvalue_output(info.name, value)
            for index in range(repeats):
                start = time.perf_counter_ns()
                session.run_with_iobinding(binding)
                samples[index] = (time.perf_counter_ns() - start) * 1e-9
        return samples

    def close(self) -> None:
        self._session = None

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        """Within the block, what ONNX Runtime raises is SE603: a file can be loaded and not take its own sizes."""
        try:
            yield
        except Exception as error:
            text = f"ONNX Runtime cannot run {self._engine}: {first_line(error)}"
            raise fail("SE603", text, "its graph does not fit the inputs that it declares: export it again") from error

    def _open(self) -> onnxruntime.InferenceSession:
        if self._session is None:
            raise fail("SE603", "the engine was closed", "use a runner inside its `with` block")
        return self._session


def session_options(threads: int | None) -> onnxruntime.SessionOptions:
    """How every session runs, whether it builds or answers."""
    options = onnxruntime.SessionOptions()
    # At WARNING it prints to the console that the file is for this hardware only, which the manifest says already.
    options.log_severity_level = ERRORS_ONLY
    if threads is not None:
        options.intra_op_num_threads = threads
    # Else the threads of a session that has just run spin on for a while, on the cores of the one timed next to it.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _info(node: onnxruntime.NodeArg) -> TensorInfo:
    dtype = node.type.removeprefix("tensor(").removesuffix(")")
    # Paddle calls every open size "?": that names none, and two of them are not one.
    shape = tuple(f"dim{axis}" if dim in (None, "?") else dim for axis, dim in enumerate(node.shape))
    return TensorInfo(node.name, shape, DTYPES.get(dtype, dtype))
