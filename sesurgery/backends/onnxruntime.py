"""ONNX Runtime: on the CPU, an engine is its own optimised graph, written once and run as it is.

Optimising at load or loading the optimised graph gives the same outputs bit for bit and the same speed (medians of 100
runs within 5 % of each other on SE-ResNets, batch 1 and 8, and the order changes from run to run); the file form shows
what will run, and loads faster. It holds operators of this processor's kind (blocked layouts), which is why an engine's
manifest records the device.

With another provider an engine is the ONNX file as it is, in one piece: what a GPU provider makes of it (compiled
nodes, for TensorRT) cannot be written to a file, so it is optimised at every load. Above 2 GiB the weights of either
stand beside the engine, in NAME.onnx.data. ONNX Runtime goes on with the CPU
where a provider does not start, and logs a warning that nobody reads; here that is an error.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto

from sesurgery import temporaries
from sesurgery.artifacts import cpu_name
from sesurgery.backends.base import (
    Array,
    Backend,
    BuildOptions,
    BuildReport,
    Capability,
    Progress,
    Runner,
    TensorInfo,
)
from sesurgery.backends.inputs import feeds as _feeds
from sesurgery.backends.inputs import onnx_file as _source
from sesurgery.backends.onnxruntime_graph import special
from sesurgery.diagnostics import fail
from sesurgery.onnxgraph import branches as _branches
from sesurgery.onnxgraph import io as onnx_io

CPU = "CPUExecutionProvider"
PROVIDERS = {
    "cpu": [CPU],
    "cuda": ["CUDAExecutionProvider", CPU],
    "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider", CPU],
}
"""Whom to ask, in this order; the first must take part. The CPU has the few nodes that no GPU provider takes."""
PACKAGES = {"cpu": "onnxruntime", "cuda": "onnxruntime-gpu", "tensorrt": "onnxruntime-gpu, and TensorRT's libraries"}
ERRORS_ONLY = 3
_WEIGHTS_FILE = "session.optimized_model_external_initializers_file_name"
DTYPES = {
    "float": "float32",
    "double": "float64",
    **{name: name for name in ("float16", "int8", "uint8", "int16", "int32", "int64", "bool")},
}


@dataclass(frozen=True)
class OnnxRuntime(Backend):
    """Runs everywhere that onnxruntime does; an fp16 graph is computed in fp32 by its CPU kernels.

    `provider` is who computes: `cpu`, or `cuda` or `tensorrt` with an NVIDIA GPU and the package onnxruntime-gpu.
    """

    suffix = ".onnx"
    # Its CPU provider has no convolution in bf16.
    precisions = ("fp32", "fp16", "int8")
    # On x86 its integer convolutions take unsigned values alone; of signed ones it computes nearly all in fp32.
    int8_activations = "uint8"

    # docs/free_se.md has what each brings; the scaling itself is put right while it builds.
    passes = ("linear_to_conv", "hard_sigmoid", "squeeze_hoist", "squeeze_pool")
    lowered = ("fp32", "int8")
    rewrites = ("fp32",)

    provider: Literal["cpu", "cuda", "tensorrt"] = "cpu"

    def probe(self) -> Capability:
        known = onnxruntime.get_available_providers()
        notes = (f"providers in this onnxruntime: {', '.join(name for name in PROVIDERS if _first(name) in known)}",)
        if _first(self.provider) in known:
            return Capability(onnxruntime.__version__, builds=None, runs=None, notes=notes)
        reason = f"this onnxruntime has no {_first(self.provider)} (it has {', '.join(known)})"
        # A file can be checked and carried to a machine that has the provider.
        remedy = f"pip install {PACKAGES[self.provider]}, in the place of onnxruntime"
        return Capability(onnxruntime.__version__, builds=None, runs=reason, remedy=remedy, notes=notes)

    def beside(self, engine: Path) -> tuple[Path, ...]:
        return onnx_io.beside(engine)

    def build(self, onnx: Path, out: Path, options: BuildOptions, progress: Progress | None = None) -> BuildReport:
        source = _source.read(onnx)
        convolutions = source.convolutions()
        _source.prove_precision(options.precision, convolutions, str(onnx))
        tell = progress or (lambda what, done, total: None)
        tell("optimising the graph", 0, 1)
        started = time.perf_counter()
        out.parent.mkdir(parents=True, exist_ok=True)
        # A folder of its own, for weights that stand outside a file are found by the file's final name.
        with temporaries.folder(out) as folder:
            written = folder / out.name
            large = onnx_io.size(onnx) > onnx_io.LIMIT
            levels = onnxruntime.GraphOptimizationLevel
            session_options = _session_options(options.threads)
            session_options.graph_optimization_level = levels.ORT_ENABLE_ALL
            if self.provider == "cpu" or large:
                session_options.optimized_model_filepath = str(written)
            else:
                written.write_bytes(onnx.read_bytes())
            if large:
                session_options.add_session_config_entry(_WEIGHTS_FILE, onnx_io.data_path(out).name)
                if self.provider != "cpu":
                    session_options.graph_optimization_level = levels.ORT_DISABLE_ALL
            notes = _source.fixed_batch_notes(source, options.batch)
            try:
                onnxruntime.InferenceSession(str(onnx), session_options, providers=[CPU])
                if not large:
                    _bring_weights_in(written, onnx.parent)
                improved = self.provider == "cpu" and not large and options.precision in self.rewrites
                if improved and not options.as_exported:
                    notes += special.improve(written, onnx, session_options, options.batch)
            except Exception as error:  # its exceptions share no base class but Exception
                raise fail("SE604", f"ONNX Runtime cannot build {onnx}: {error}") from error
            if self.provider == "cpu":
                notes += (*_computed_in_fp32(written, options), *_integer_kernels(written, convolutions))
            onnx_io.move(written, out)
        seconds = time.perf_counter() - started
        tell("optimising the graph", 1, 1)
        return BuildReport(seconds, convolutions, cpu_name(), notes)

    def load(self, engine: Path, threads: int | None = None) -> Runner:
        ability = self.probe()
        if ability.runs is not None:
            raise fail("SE603", f"ONNX Runtime cannot run {engine} here: {ability.runs}", ability.remedy)
        return _Session(engine, threads, self.provider)


class _Session(Runner):
    def __init__(self, engine: Path, threads: int | None, provider: str = "cpu") -> None:
        options = _session_options(threads)
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_DISABLE_ALL if provider == "cpu" else levels.ORT_ENABLE_ALL
        try:
            self._session = onnxruntime.InferenceSession(str(engine), options, providers=PROVIDERS[provider])
        except Exception as error:
            raise fail("SE603", f"ONNX Runtime cannot load {engine}: {error}", "build the engine again here") from error
        if _first(provider) not in (taken := self._session.get_providers()):
            text = f"ONNX Runtime fell back from {_first(provider)} to {', '.join(taken)} for {engine}"
            raise fail("SE603", text, "its log says why: a missing CUDA, cuDNN or TensorRT library, or no GPU")
        self.inputs = tuple(_info(node) for node in self._session.get_inputs())
        self.outputs = tuple(_info(node) for node in self._session.get_outputs())

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        session = self._open()
        names = [info.name for info in self.outputs]
        return dict(zip(names, session.run(names, _feeds.check(self.inputs, feeds)), strict=True))

    def time(self, feeds: Mapping[str, Array], repeats: int) -> NDArray[np.float64]:
        session = self._open()
        checked = _feeds.check(self.inputs, feeds)
        binding = session.io_binding()
        for name, array in checked.items():
            binding.bind_cpu_input(name, array)
        # Bound to the buffers of a first run, later runs allocate nothing.
        for info in self.outputs:
            binding.bind_output(info.name)
        session.run_with_iobinding(binding)
        for info, value in zip(self.outputs, binding.get_outputs(), strict=True):
            binding.bind_ortvalue_output(info.name, value)
        samples = np.empty(repeats, np.float64)
        for index in range(repeats):
            start = time.perf_counter_ns()
            session.run_with_iobinding(binding)
            samples[index] = (time.perf_counter_ns() - start) * 1e-9
        return samples

    def close(self) -> None:
        self._session = None

    def _open(self) -> onnxruntime.InferenceSession:
        if self._session is None:
            raise fail("SE603", "the engine was closed", "use a runner inside its `with` block")
        return self._session


def _first(provider: str) -> str:
    return PROVIDERS[provider][0]


def _session_options(threads: int | None) -> onnxruntime.SessionOptions:
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
    shape = tuple(dim if dim is not None else f"dim{axis}" for axis, dim in enumerate(node.shape))
    return TensorInfo(node.name, shape, DTYPES.get(dtype, dtype))


def _bring_weights_in(engine: Path, folder: Path) -> None:
    """Weights kept outside the ONNX file are still outside the optimised one, and would be sought beside the engine."""
    model = onnx.load(engine, load_external_data=False)
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in model.graph.initializer):
        onnx.load_external_data_for_model(model, str(folder))
        onnx.save(model, engine)


def _computed_in_fp32(engine: Path, options: BuildOptions) -> tuple[str, ...]:
    if options.precision != "fp16":
        return ()
    graph = onnx.load(engine, load_external_data=False).graph
    weights = {tensor.name: tensor.data_type for each in _branches.graphs(graph) for tensor in each.initializer}
    nodes = list(_branches.nodes(graph))
    convolutions = [node for node in nodes if node.op_type in ("Conv", "FusedConv")]
    single = sum(weights.get(node.input[1]) == TensorProto.FLOAT for node in convolutions)
    if not single:
        return ()
    casts = sum(node.op_type == "Cast" for node in nodes)
    return (
        f"the CPU provider has no fp16 kernels for them: {single} of {len(convolutions)} convolutions of its optimised "
        f"graph compute in fp32 (Cast nodes: {casts}); speed and drift say nothing about fp16 hardware",
    )


def _integer_kernels(engine: Path, convolutions: Mapping[str, int]) -> tuple[str, ...]:
    graph = onnx.load(engine, load_external_data=False).graph
    found, asked = sum(node.op_type == "QLinearConv" for node in _branches.nodes(graph)), convolutions.get("int8", 0)
    if found >= asked:
        return ()
    return (f"{found} of {asked} int8 convolutions have an integer kernel here; the others compute in fp32",)
