"""Building an engine of ONNX Runtime: its own optimised graph, or, for a GPU, the file in one piece."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnxruntime
from onnx import TensorProto

from sesurgery import temporaries
from sesurgery.artifacts import cpu_name
from sesurgery.backends.base import BuildOptions, BuildReport, Progress
from sesurgery.backends.inputs import onnx_file as _source
from sesurgery.backends.onnxruntime_graph import special
from sesurgery.backends.onnxruntime_graph.providers import CPU
from sesurgery.backends.onnxruntime_graph.session import session_options
from sesurgery.diagnostics import fail
from sesurgery.onnxgraph import branches as _branches
from sesurgery.onnxgraph import io as onnx_io

_WEIGHTS_FILE = "session.optimized_model_external_initializers_file_name"


def build(
    file: Path,
    out: Path,
    options: BuildOptions,
    *,
    cpu: bool = True,
    rewritten: bool = False,
    progress: Progress | None = None,
) -> BuildReport:
    """As `Backend.build`; `cpu` is whether the CPU computes, for which the optimised graph can be written.

    `rewritten` lets gates scale in the layout of that graph (`special.improve`).
    """
    source = _source.read(file)
    convolutions = source.convolutions()
    _source.prove_precision(options.precision, convolutions, str(file))
    tell = progress or (lambda what, done, total: None)
    tell("optimising the graph", 0, 1)
    started = time.perf_counter()
    out.parent.mkdir(parents=True, exist_ok=True)
    # A folder of its own, for weights that stand outside a file are found by the file's final name.
    with temporaries.folder(out) as folder:
        written = folder / out.name
        large = onnx_io.size(file) > onnx_io.LIMIT
        levels = onnxruntime.GraphOptimizationLevel
        settings = session_options(options.threads)
        settings.graph_optimization_level = levels.ORT_ENABLE_ALL
        if cpu or large:
            settings.optimized_model_filepath = str(written)
        else:
            written.write_bytes(file.read_bytes())
        if large:
            settings.add_session_config_entry(_WEIGHTS_FILE, onnx_io.data_path(out).name)
            if not cpu:
                settings.graph_optimization_level = levels.ORT_DISABLE_ALL
        notes = _source.fixed_batch_notes(source, options.batch)
        try:
            onnxruntime.InferenceSession(str(file), settings, providers=[CPU])
            if not large:
                _bring_weights_in(written, file.parent)
            if cpu and not large and rewritten:
                notes += special.improve(written, file, settings, options.batch)
        except Exception as error:  # its exceptions share no base class but Exception
            raise fail("SE604", f"ONNX Runtime cannot build {file}: {error}") from error
        if cpu:
            notes += (*_computed_in_fp32(written, options), *_integer_kernels(written, convolutions))
        onnx_io.move(written, out)
    seconds = time.perf_counter() - started
    tell("optimising the graph", 1, 1)
    return BuildReport(seconds, convolutions, cpu_name(), notes)


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
