"""The verb `package`: an engine as a model of Triton Inference Server.

    DIR/NAME/config.pbtxt   inputs, outputs, and dynamic batching
    DIR/NAME/labels.txt     class names, where its run's data set has them
    DIR/NAME/1/model.*      the engine; the next one packaged under that name is version 2

`config.pbtxt` is protobuf's text form of Triton's ModelConfig, written by hand: it is short, and the server's schema
is a dependency for the tests alone.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from sesurgery import temporaries
from sesurgery.artifacts import digest_file, locked, write_text
from sesurgery.diagnostics import SesurgeryError, fail
from sesurgery.onnxgraph import io as onnx_io
from sesurgery.paths import inside, plain_name
from sesurgery.profiles import parse_profile
from sesurgery.serving import interface
from sesurgery.serving.loadable import backend_of, require_loadable
from sesurgery.workspace import (
    EngineManifest,
    PackageDetails,
    PackageManifest,
    Provenance,
    belonging,
    describe,
    relative,
)
from sesurgery.workspace.manifests import AskedEngine

CONFIG, LABELS = "config.pbtxt", "labels.txt"
QUEUE_DELAY = 100
"""Microseconds that a request waits for others to share a batch with."""
TYPES = {
    TensorProto.FLOAT: "TYPE_FP32",
    TensorProto.FLOAT16: "TYPE_FP16",
    TensorProto.BFLOAT16: "TYPE_BF16",
    TensorProto.DOUBLE: "TYPE_FP64",
    **{getattr(TensorProto, f"{sign}INT{size}"): f"TYPE_{sign}INT{size}" for sign in ("", "U") for size in (8, 16, 32)},
    TensorProto.INT64: "TYPE_INT64",
    TensorProto.UINT64: "TYPE_UINT64",
    TensorProto.BOOL: "TYPE_BOOL",
}


@dataclass(frozen=True)
class Packaged:
    """A version of a model on a server; `notes` say how it differs from the engine that was verified."""

    folder: Path
    version: int
    files: tuple[Path, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Tensor:
    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Kind:
    """How Triton loads the engines of one backend: Triton's backend, the file name, and its limits."""

    backend: str
    files: tuple[str, ...]
    batches: bool = True
    from_source: bool = False
    notes: tuple[str, ...] = ()


KINDS = {
    "tensorrt": _Kind(
        "tensorrt",
        ("model.plan",),
        notes=("the server must have the GPU and the TensorRT that this plan was built with",),
    ),
    "onnxruntime": _Kind(
        "onnxruntime",
        ("model.onnx",),
        from_source=True,
        notes=(
            "model.onnx is the file that the engine was built from: the engine itself is for this processor and this "
            "ONNX Runtime, and the server optimises for its own",
        ),
    ),
    # With a batch size, it compiles for that size alone and computes a full batch even for a single sample.
    "openvino": _Kind(
        "openvino",
        ("model.xml", "model.bin"),
        batches=False,
        notes=("Triton's OpenVINO backend does not combine requests: each client's batch runs alone",),
    ),
}


def package(engine: Path, repository: Path, name: str | None = None, *, foreign: bool = False) -> Packaged:
    """Put an engine into a model repository, as the next version of `name` (default: the run's or the file's).

    Raises SE603 for an engine that Triton has no backend for, or from elsewhere (unless `foreign`), SE402 if the
    ONNX file that it was built from is gone, SE405 if the model is there with another configuration.
    """
    manifest = require_loadable(engine, foreign=foreign)
    details = manifest.details
    kind = KINDS.get(details.backend)
    if kind is None:
        text = f"Triton has no backend for engines of {details.backend!r}"
        raise fail("SE603", text, f"build one with {', '.join(sorted(KINDS))}")
    if _option(manifest, "stripped"):
        text = f"{engine} has no weights, and Triton would not put them in"
        raise fail("SE603", text, f"put them in: `sesurgery refit {engine.as_posix()} -o OUT`, and package that")
    source = _source(engine, manifest)
    inputs, outputs = tensors_of(source)
    classes = _classes(engine, manifest, outputs)
    name = plain_name(name or details.onnx.rpartition("/")[2].removesuffix(".onnx"), "the model's name")
    config = configuration(name, kind, inputs, outputs, manifest, labels=bool(classes))
    notes = _notes(kind, manifest, "dynamic_batching" in config)
    model = repository / name
    with locked(repository):
        # A repository lies outside the folders that every command cleans.
        temporaries.sweep(model, *model.glob("*/"))
        _write_once(model / CONFIG, config)
        if classes:
            _write_once(model / LABELS, "".join(f"{label}\n" for label in classes))
        version, files = _place(model, _files(engine, manifest, source, kind))
    main = files[0]
    describe(
        main,
        Provenance(
            PackageManifest,
            name,
            f"sesurgery package {engine.as_posix()} --triton {repository.as_posix()} --name {name}",
            parents=(engine, source),
            beside=files[1:],
            device=manifest.device,
            details=PackageDetails(server="triton", version=version, engine=relative(engine, main), notes=notes),
        ),
    )
    return Packaged(model, version, files, notes)


def _source(engine: Path, manifest: EngineManifest) -> Path:
    """The ONNX file that the engine was built from, which names its inputs and outputs."""
    parents = manifest.parent_files(engine)
    for path, digest in parents.items():
        if path.is_file() and digest_file(path) == digest:
            return path
    names = ", ".join(path.as_posix() for path in parents)
    text = f"{names}, which {engine} was built from, is gone or was changed"
    raise fail("SE402", text, f"build it again: `{manifest.command}`")


def tensors_of(source: Path) -> tuple[list[_Tensor], list[_Tensor]]:
    """Inputs and outputs; an open dimension is -1."""
    graph = onnx.load(source, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}

    def made(value: onnx.ValueInfoProto) -> _Tensor:
        kind = value.type.tensor_type
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim)
        if kind.elem_type not in TYPES:
            dtype = TensorProto.DataType.Name(kind.elem_type)
            raise fail("SE603", f"{value.name!r} is {dtype}, which Triton does not have", "export it in another type")
        return _Tensor(value.name, TYPES[kind.elem_type], shape)

    inputs = [made(value) for value in graph.input if value.name not in weights]
    return inputs, [made(value) for value in graph.output]


def _classes(engine: Path, manifest: EngineManifest, outputs: list[_Tensor]) -> tuple[str, ...]:
    """Class names, if there is one output with as many values as there are names."""
    if not manifest.details.run:
        return ()
    try:
        classes = interface.of(engine, manifest).classes
    except SesurgeryError:
        # Class names are optional.
        return ()
    return classes if len(outputs) == 1 and outputs[0].shape[1:] == (len(classes),) else ()


def _largest(asked: AskedEngine) -> int:
    """The largest batch that the engine takes."""
    sizes = [size.maximum[0] for text in asked.shapes for size in parse_profile(text).values()]
    return max(sizes, default=asked.batch.max)


def configuration(
    name: str, kind: _Kind, inputs: list[_Tensor], outputs: list[_Tensor], manifest: EngineManifest, labels: bool
) -> str:
    """The text of Triton's `config.pbtxt`."""
    asked = manifest.details.engine
    on_gpu = manifest.details.backend == "tensorrt" or _provider(manifest) in ("cuda", "tensorrt")
    batched = kind.batches and all(tensor.shape[:1] == (-1,) for tensor in (*inputs, *outputs))
    parts = [
        f"name: {_quoted(name)}",
        f"backend: {_quoted(kind.backend)}",
        # Zero: the first dimension is not a batch, and requests are not combined.
        f"max_batch_size: {_largest(asked) if batched else 0}",
        *(_tensor("input", tensor, batched) for tensor in inputs),
        *(_tensor("output", tensor, batched, LABELS if labels else None) for tensor in outputs),
        f"instance_group [\n  {{ count: 1 kind: {'KIND_GPU' if on_gpu else 'KIND_CPU'} }}\n]",
    ]
    if batched:
        best = asked.batch.opt
        preferred = f"  preferred_batch_size: [ {best} ]\n" if best > 1 else ""
        parts.append(f"dynamic_batching {{\n{preferred}  max_queue_delay_microseconds: {QUEUE_DELAY}\n}}")
    if _provider(manifest) == "tensorrt":
        accelerator = '{ name: "tensorrt" }'
        parts.append(f"optimization {{ execution_accelerators {{ gpu_execution_accelerator: [ {accelerator} ] }} }}")
    parts += [_parameter(key, value) for key, value in _parameters(manifest).items()]
    return "\n".join(parts) + "\n"


def _tensor(word: str, tensor: _Tensor, batched: bool, labels: str | None = None) -> str:
    dims = ", ".join(str(dim) for dim in tensor.shape[int(batched) :])
    named = f"\n    label_filename: {_quoted(labels)}" if labels else ""
    return (
        f"{word} [\n  {{\n    name: {_quoted(tensor.name)}\n    data_type: {tensor.dtype}\n    dims: [ {dims} ]{named}"
        "\n  }\n]"
    )


def _parameter(key: str, value: str) -> str:
    return f"parameters {{ key: {_quoted(key)} value: {{ string_value: {_quoted(value)} }} }}"


def _parameters(manifest: EngineManifest) -> dict[str, str]:
    """Parameters of Triton's OpenVINO backend; there is none for fp32."""
    if manifest.details.backend != "openvino":
        return {}
    found = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"}
    return {**found, "HINT_BF16": "YES"} if manifest.details.precision == "bf16" else found


def _provider(manifest: EngineManifest) -> str | None:
    provider: str | None = _option(manifest, "provider")
    return provider


def _option(manifest: EngineManifest, name: str) -> Any:
    """An option of the backend that built an engine; None if there is no such option."""
    return getattr(backend_of(manifest), name, None)


def _notes(kind: _Kind, manifest: EngineManifest, batched: bool) -> tuple[str, ...]:
    """How the model differs on the server."""
    smallest = manifest.details.engine.batch.min
    notes = list(kind.notes)
    if manifest.details.backend == "openvino" and manifest.details.precision != "bf16":
        notes.append(
            "Triton's OpenVINO backend cannot be told to compute in fp32: on a processor with bf16 it computes in "
            "bf16, which is not what was verified here"
        )
    if batched and smallest > 1:
        notes.append(f"the engine takes batches of {smallest} and more: the server may form smaller ones")
    return tuple(notes)


def _files(engine: Path, manifest: EngineManifest, source: Path, kind: _Kind) -> dict[str, Path]:
    """The files of a version, by their names on the server."""
    if not kind.from_source:
        files = tuple(belonging(engine, manifest))
        if len(files) != len(kind.files):
            text = (
                f"the manifest of {engine} names {len(files)} files, an engine of {kind.backend} has {len(kind.files)}"
            )
            raise fail("SE401", text, f"build it again: `{manifest.command}`")
        return dict(zip(kind.files, files, strict=True))
    (main,) = kind.files
    weights = onnx_io.outside(onnx.load(source, load_external_data=False), source)
    if main in weights:
        text = f"{source} keeps weights in a file that is called {main}, as the server calls the model itself"
        raise fail("SE603", text, "write it again with `sesurgery lower`, and build the engine of that")
    # External weights are looked for beside the file, under the name stored in it.
    return {main: source, **dict(sorted(weights.items()))}


def _place(model: Path, files: Mapping[str, Path]) -> tuple[int, tuple[Path, ...]]:
    """Copy the files into the next version's folder, which appears only when complete: a server may be watching."""
    there = [int(path.name) for path in model.iterdir() if path.is_dir() and path.name.isdigit()]
    version = max(there, default=0) + 1
    with temporaries.folder(model / "version") as folder:
        whole = folder / str(version)
        whole.mkdir()
        for name, path in files.items():
            place = inside(whole, name, f"a file of version {version}")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
        whole.rename(model / str(version))
    return version, tuple(model / str(version) / name for name in files)


def _write_once(path: Path, text: str) -> None:
    """Write a file that all versions share; raises SE405 if a different one is there."""
    if not path.exists():
        write_text(path, text)
    elif (before := path.read_text(encoding="utf-8")) != text:
        pairs = zip_longest(before.splitlines(), text.splitlines(), fillvalue="nothing")
        old, new = next((old.strip(), new.strip()) for old, new in pairs if old != new)
        what = f"{path} is there and says {old!r} where this engine needs {new!r}"
        raise fail("SE405", what, "give the model another --name, or remove the folder")


def _quoted(text: str) -> str:
    """A string in protobuf's text form, which reads JSON's escapes except those of non-ASCII characters."""
    return json.dumps(text, ensure_ascii=False)
