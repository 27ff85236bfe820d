"""The configuration of a model on Triton Inference Server: `config.pbtxt`.

It is protobuf's text form of Triton's ModelConfig, written by hand: it is short, and the server's schema is a
dependency for the tests alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from sesurgery.diagnostics import fail
from sesurgery.profiles import parse_profile
from sesurgery.serving.loadable import backend_of
from sesurgery.verification.batches import tuned_for
from sesurgery.workspace import EngineManifest
from sesurgery.workspace.details import AskedEngine

LABELS = "labels.txt"
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
class Tensor:
    """An input or output as Triton has it; an open dimension is -1."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Kind:
    """How Triton loads the engines of one backend: Triton's backend, the file name, and its limits."""

    backend: str
    files: tuple[str, ...]
    batches: bool = True
    from_source: bool = False
    notes: tuple[str, ...] = ()


KINDS = {
    "tensorrt": Kind(
        "tensorrt",
        ("model.plan",),
        notes=("the server must have the GPU and the TensorRT that this plan was built with",),
    ),
    "onnxruntime": Kind(
        "onnxruntime",
        ("model.onnx",),
        from_source=True,
        notes=(
            "model.onnx is the file that the engine was built from: the engine itself is for this processor and this "
            "ONNX Runtime, and the server optimises for its own",
        ),
    ),
    # With a batch size, it compiles for that size alone and computes a full batch even for a single sample.
    "openvino": Kind(
        "openvino",
        ("model.xml", "model.bin"),
        batches=False,
        notes=("Triton's OpenVINO backend does not combine requests: each client's batch runs alone",),
    ),
}


def tensors_of(source: Path) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and outputs; an open dimension is -1."""
    graph = onnx.load(source, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}

    def made(value: onnx.ValueInfoProto) -> Tensor:
        kind = value.type.tensor_type
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim)
        if kind.elem_type not in TYPES:
            dtype = TensorProto.DataType.Name(kind.elem_type)
            raise fail("SE603", f"{value.name!r} is {dtype}, which Triton does not have", "export it in another type")
        return Tensor(value.name, TYPES[kind.elem_type], shape)

    inputs = [made(value) for value in graph.input if value.name not in weights]
    return inputs, [made(value) for value in graph.output]


def configuration(
    name: str, kind: Kind, inputs: list[Tensor], outputs: list[Tensor], manifest: EngineManifest, labels: bool
) -> str:
    """The text of Triton's `config.pbtxt`."""
    asked = manifest.details.engine
    on_gpu = manifest.details.backend == "tensorrt" or _provider(manifest) in ("cuda", "tensorrt")
    batched = kind.batches and all(tensor.shape[:1] == (-1,) for tensor in (*inputs, *outputs))
    parts = [
        f"name: {_quoted(name)}",
        f"backend: {_quoted(kind.backend)}",
        # Zero: the first dimension is not a batch, and requests are not combined.
        f"max_batch_size: {_range(asked)[1] if batched else 0}",
        *(_tensor("input", tensor, batched) for tensor in inputs),
        *(_tensor("output", tensor, batched, LABELS if labels else None) for tensor in outputs),
        f"instance_group [\n  {{ count: 1 kind: {'KIND_GPU' if on_gpu else 'KIND_CPU'} }}\n]",
    ]
    if batched:
        best = tuned_for(asked)
        preferred = f"  preferred_batch_size: [ {best} ]\n" if best > 1 else ""
        parts.append(f"dynamic_batching {{\n{preferred}  max_queue_delay_microseconds: {QUEUE_DELAY}\n}}")
    if _provider(manifest) == "tensorrt":
        accelerator = '{ name: "tensorrt" }'
        parts.append(f"optimization {{ execution_accelerators {{ gpu_execution_accelerator: [ {accelerator} ] }} }}")
    parts += [_parameter(key, value) for key, value in _parameters(manifest).items()]
    return "\n".join(parts) + "\n"


def _range(asked: AskedEngine) -> tuple[int, int]:
    """The smallest and the largest batch that the engine takes."""
    sizes = [size for text in asked.shapes for size in parse_profile(text).values()]
    lowest = min((size.minimum[0] for size in sizes), default=asked.batch.min)
    return lowest, max((size.maximum[0] for size in sizes), default=asked.batch.max)


def _tensor(word: str, tensor: Tensor, batched: bool, labels: str | None = None) -> str:
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
    provider: str | None = getattr(backend_of(manifest), "provider", None)
    return provider


def notes_of(kind: Kind, manifest: EngineManifest, batched: bool) -> tuple[str, ...]:
    """How the model differs on the server."""
    smallest, _ = _range(manifest.details.engine)
    notes = list(kind.notes)
    if manifest.details.backend == "openvino" and manifest.details.precision != "bf16":
        notes.append(
            "Triton's OpenVINO backend cannot be told to compute in fp32: on a processor with bf16 it computes in "
            "bf16, which is not what was verified here"
        )
    if batched and smallest > 1:
        notes.append(f"the engine takes batches of {smallest} and more: the server may form smaller ones")
    return tuple(notes)


def _quoted(text: str) -> str:
    """A string in protobuf's text form, which reads JSON's escapes except those of non-ASCII characters."""
    return json.dumps(text, ensure_ascii=False)
