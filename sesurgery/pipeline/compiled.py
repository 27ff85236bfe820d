"""The kernels that a compiler makes of an ONNX file or an engine, their fusions and their memory traffic."""

from __future__ import annotations

import contextlib
from pathlib import Path

from sesurgery.artifacts import digest_file
from sesurgery.backends import BACKENDS
from sesurgery.backends.base import BatchRange, BuildOptions, ListsKernels, ListsOperators
from sesurgery.backends.inputs import onnx_file as _source
from sesurgery.diagnostics import SesurgeryError, fail
from sesurgery.pipeline.specs import engine_of
from sesurgery.profiles import parse_profile
from sesurgery.reports.text.compiled import CompiledReport, OperatorReport
from sesurgery.serving.loadable import require_loadable
from sesurgery.spec.engines import Engine, Precision
from sesurgery.workspace import EngineManifest, is_engine, require_intact

COMPILER = "tensorrt-rtx"
"""Compiles on any machine."""


def inspect_compiled(given: Path) -> CompiledReport | OperatorReport:
    """Kernels, activation bytes and fusions of an ONNX file or of an engine that this program built.

    An engine of ONNX Runtime for the CPU is its own list of kernels. A file is compiled by TensorRT-RTX at batch 1. An
    engine of NVIDIA's tells it itself where it can run, was built with `detailed` and knows its shapes; elsewhere it is
    compiled once more, of the file and with the options that its manifest names.
    """
    if given.suffix == ".onnx" and not is_engine(given):
        backend = BACKENDS.load(COMPILER)()
        assert isinstance(backend, ListsKernels)
        source = _source.read(given)
        found = backend.compile_kernels(given, BuildOptions(precision(source)))
        return CompiledReport(given.name, f"compiled by {backend.title} at batch 1", found, _scopes(source))
    manifest = require_intact(given, EngineManifest)
    wanted = engine_of(manifest)
    backend = wanted.backend.options
    if isinstance(backend, ListsOperators) and (report := _operators(given, manifest, backend)) is not None:
        return report
    if isinstance(backend, ListsKernels):
        return _kernels(given, manifest, wanted, backend)
    text = f"{given} is an engine of {wanted.backend.name}, which has no list of kernels"
    raise fail("SE603", text, "give an engine of tensorrt, tensorrt-rtx or onnxruntime (cpu), or an ONNX file")


def _kernels(engine: Path, manifest: EngineManifest, wanted: Engine, backend: ListsKernels) -> CompiledReport:
    batch = wanted.batch.opt
    require_loadable(engine, foreign=True)
    if (told := backend.kernels_of(engine, batch)) is not None:
        return CompiledReport(engine.name, "as the engine tells", told, {})
    onnx = _origin(engine, manifest)
    options = BuildOptions(
        wanted.precision,
        BatchRange(wanted.batch.min, batch, wanted.batch.max),
        tuple(parse_profile(shapes) for shapes in wanted.shapes),
    )
    how = f"compiled again of {onnx.as_posix()} by {backend.title} at batch {batch}"
    return CompiledReport(engine.name, how, backend.compile_kernels(onnx, options), _scopes(_source.read(onnx)))


def _operators(engine: Path, manifest: EngineManifest, backend: ListsOperators) -> OperatorReport | None:
    source = None
    with contextlib.suppress(SesurgeryError):
        # Without the file, module names are missing; the list is otherwise the same.
        source = _source.read(_origin(engine, manifest))
    graphs = backend.operators(engine, source.model if source else None)
    if graphs is None:
        return None
    how = f"as ONNX Runtime optimised it for {manifest.device}"
    return OperatorReport(engine.name, how, graphs, _scopes(source) if source else {})


def precision(source: _source.OnnxFile) -> Precision:
    """What an ONNX file computes its convolutions in."""
    if any(node.op_type == "DequantizeLinear" for node in source.model.graph.node):
        return "int8"
    types = source.convolutions()
    kinds: tuple[Precision, ...] = ("fp16", "bf16")
    return next((kind for kind in kinds if kind in types), "fp32")


def _origin(engine: Path, manifest: EngineManifest) -> Path:
    """The ONNX file that an engine was built from; raises SE603 if it is gone or changed."""
    for path, digest in manifest.parent_files(engine).items():
        if path.suffix == ".onnx" and path.is_file() and digest_file(path) == digest:
            return path
    text = f"{engine} cannot be read here, and the ONNX file it was built from is not there as it was"
    raise fail("SE603", text, f"build it again: {manifest.command}")


def _scopes(source: _source.OnnxFile) -> dict[str, str]:
    """The module that owns each node, where the file has that information."""
    scopes = {node.name: source.scope(node.name) for node in source.model.graph.node if node.name}
    return {name: scope for name, scope in scopes.items() if scope}
