"""Which network an ONNX file holds, and with which weights: what an engine may take its weights from.

NVIDIA's refitter goes by the names of weights alone. A file of another network that has the same names would be taken,
and the engine would answer nonsense. So an engine's manifest keeps digests of the file that it was built from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto, numpy_helper

from sesurgery.artifacts import digest_file
from sesurgery.diagnostics import SesurgeryError, fail
from sesurgery.workspace import EngineManifest, manifest_path, read_manifest
from sesurgery.workspace.details import NetworkDigests

WEIGHTS = {
    number
    for name, number in TensorProto.DataType.items()
    if name.startswith(("FLOAT", "BFLOAT", "DOUBLE", "INT8", "UINT8", "INT4", "UINT4"))
}
"""Types of weights. Values of other types say what a network does, where to reshape to for one, as scalars do."""
SHOWN = 3
"""Names in an error."""


@dataclass(frozen=True)
class Network:
    """Digests of all that a file says but its weights' values, and of those; `weights` are types and shapes by name."""

    structure: str
    values: str
    weights: Mapping[str, str]

    def recorded(self) -> NetworkDigests:
        """As an engine's manifest keeps it."""
        return NetworkDigests(structure=self.structure, values=self.values, weights=dict(self.weights))

    def difference(self, other: Network) -> str | None:
        """Why `other` has no weights for this network, or None if it has."""
        if lacking := [name for name in self.weights if name not in other.weights]:
            return f"it lacks {named(lacking)}"
        if more := [name for name in other.weights if name not in self.weights]:
            return f"it has {named(more)} besides"
        for name, kind in self.weights.items():
            if other.weights[name] != kind:
                return f"{name!r} is {other.weights[name]} in it, and {kind} in the engine"
        return None if self.structure == other.structure else "its operations, shapes or constants are others"


def read(path: Path) -> Network:
    """What network a file holds; raises SE602 if it is not an ONNX file, or its weights are not there."""
    try:
        # With the weights that are kept outside the file.
        graph = (model := onnx.load(path)).graph
    except Exception as error:  # DecodeError, OSError, ValidationError and more
        raise fail("SE602", f"{path} is not a valid ONNX model: {error}", "export it again") from error
    structure, values = hashlib.sha256(), hashlib.sha256()
    weights = {}
    for entry in sorted(model.opset_import, key=lambda entry: entry.domain):
        structure.update(f"{entry.domain} {entry.version}\n".encode())
    for value in (*graph.input, *graph.output):
        structure.update(f"{value.name} ".encode() + value.type.SerializeToString(deterministic=True))
    for node in graph.node:
        structure.update("\n".join(_words(node)).encode())
        for attribute in sorted(node.attribute, key=lambda attribute: attribute.name):
            structure.update(attribute.SerializeToString(deterministic=True))
    for tensor in sorted(graph.initializer, key=lambda tensor: tensor.name):
        kind = f"{TensorProto.DataType.Name(tensor.data_type).lower()} {list(tensor.dims)}"
        content = numpy_helper.to_array(tensor).tobytes()
        structure.update(f"{tensor.name} {kind}\n".encode())
        if tensor.data_type in WEIGHTS and tensor.dims:
            weights[tensor.name] = kind
            values.update(content)
        else:
            structure.update(content)
    return Network(structure.hexdigest(), values.hexdigest(), weights)


def recorded(manifest: EngineManifest) -> Network | None:
    """The network that an engine was built of, where its manifest says; one that keeps its weights says nothing."""
    found = manifest.details.network
    return None if found is None else Network(found.structure, found.values, found.weights)


def origin(engine: Path) -> Path:
    """The ONNX file that an engine was built from, as it was then; raises SE603 if it is not there any more.

    It may also lie beside the engine: where both were brought from another machine.
    """
    if not manifest_path(engine).is_file():
        text = f"{engine} has no weights, and no manifest that says which ONNX file has them"
        raise fail("SE603", text, "build it with `sesurgery build-engine`, or give the file to the backend's load()")
    manifest = read_manifest(engine, EngineManifest)
    wanted = recorded(manifest)
    changed: list[Path] = []
    sources = {path: digest for path, digest in manifest.parent_files(engine).items() if path.suffix == ".onnx"}
    for source, digest in sources.items():
        for path in _places(engine, source):
            if _unchanged(path, digest, wanted):
                return path
            changed.append(path)
    name = changed[0].as_posix() if changed else ", ".join(map(Path.as_posix, sources)) or "the ONNX file"
    text = f"{engine} has no weights, and {name}, which has them, {'was changed since' if changed else 'is gone'}"
    raise fail("SE603", text, f"bring that file back, here or beside the engine, or build again: `{manifest.command}`")


def named(names: list[str]) -> str:
    """The first of many names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(repr(name) for name in names[:SHOWN]) + more


def _places(engine: Path, path: Path) -> Iterator[Path]:
    # Where it was, in the folder that holds engines/ (manifests of version 1 say no more), and beside the engine.
    for place in dict.fromkeys((path, engine.parent.parent / path, engine.parent / path.name)):
        if place.is_file():
            yield place


def _unchanged(path: Path, digest: str, wanted: Network | None) -> bool:
    if wanted is None:
        return digest_file(path) == digest
    try:
        found = read(path)
    except SesurgeryError:
        return False
    # Not the file's own digest: weights can lie outside it, and what else is written in it is of no account.
    return (found.structure, found.values) == (wanted.structure, wanted.values)


def _words(node: onnx.NodeProto) -> Iterator[str]:
    # Without names of nodes, and without metadata: they do nothing.
    yield from (node.domain, node.op_type, str(len(node.input)), *node.input, *node.output)
