"""What NVIDIA's compiler makes of a network: kernels, what they move, what fused; of an ONNX file or of an engine."""

from __future__ import annotations

from pathlib import Path

from sesurgery.artifacts import Manifest, digest_file, manifest_path, require_intact
from sesurgery.backends import BACKENDS, _source
from sesurgery.backends._nvidia import inspector
from sesurgery.backends._nvidia.backend import NvidiaBackend
from sesurgery.backends._nvidia.compiled import compile_
from sesurgery.backends.base import BatchRange, BuildOptions, Precision
from sesurgery.diagnostics import fail
from sesurgery.pipeline.specs import engine_of
from sesurgery.profiles import parse_profile
from sesurgery.reports.compiled import CompiledReport

COMPILER = "tensorrt-rtx"
"""Compiles on any machine."""


def inspect_compiled(given: Path) -> CompiledReport:
    """Kernels, activation bytes and fusions of an ONNX file or of an engine that this program built.

    A file is compiled by TensorRT-RTX at batch 1. An engine tells it itself where it can run and was built with
    `detailed`; elsewhere it is compiled once more, of the file and with the options that its manifest names.
    """
    if given.suffix == ".onnx" and not _is_engine(given):
        backend = BACKENDS.load(COMPILER)()
        assert isinstance(backend, NvidiaBackend)
        source = _source.read(given)
        found = compile_(backend, given, BuildOptions(precision(source)))
        return CompiledReport(given.name, f"compiled by {backend.title} at batch 1", found, _scopes(source))
    manifest = require_intact(given)
    wanted = engine_of(manifest)
    backend = wanted.backend.options
    if not isinstance(backend, NvidiaBackend):
        text = f"{given} is an engine of {wanted.backend.name}, which has no list of kernels"
        raise fail("SE603", text, "give an engine of tensorrt or tensorrt-rtx, or an ONNX file")
    batch = wanted.batch.opt
    if backend.detailed and backend.probe().runs is None:
        return CompiledReport(given.name, "as the engine tells", inspector.parse(backend.layers(given), batch), {})
    onnx = _origin(given, manifest)
    options = BuildOptions(
        wanted.precision,
        BatchRange(wanted.batch.min, batch, wanted.batch.max),
        tuple(parse_profile(shapes) for shapes in wanted.shapes),
    )
    how = f"compiled again of {onnx.as_posix()} by {backend.title} at batch {batch}"
    return CompiledReport(given.name, how, compile_(backend, onnx, options), _scopes(_source.read(onnx)))


def precision(source: _source.Source) -> Precision:
    """What an ONNX file computes its convolutions in."""
    if any(node.op_type == "DequantizeLinear" for node in source.model.graph.node):
        return "int8"
    types = source.convolutions()
    kinds: tuple[Precision, ...] = ("fp16", "bf16")
    return next((kind for kind in kinds if kind in types), "fp32")


def _is_engine(path: Path) -> bool:
    return manifest_path(path).is_file() and require_intact(path).kind == "engine"


def _origin(engine: Path, manifest: Manifest) -> Path:
    """The ONNX file that an engine was built from; raises SE603 where it is not there as it was."""
    for parent in manifest.parents:
        path = Path(parent.path)
        path = path if path.is_absolute() or path.is_file() else engine.parent / path
        if path.suffix == ".onnx" and path.is_file() and digest_file(path) == parent.sha256:
            return path
    text = f"{engine} cannot be read here, and the ONNX file it was built from is not there as it was"
    raise fail("SE603", text, f"build it again: {manifest.command}")


def _scopes(source: _source.Source) -> dict[str, str]:
    """The module that owns each node, where the file tells."""
    scopes = {node.name: source.scope(node.name) for node in source.model.graph.node if node.name}
    return {name: scope for name, scope in scopes.items() if scope}
