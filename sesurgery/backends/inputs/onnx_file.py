"""The ONNX file a build starts from: checked before any builder sees it, and asked which precision it really has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from sesurgery.backends.base import BatchRange
from sesurgery.diagnostics import SesurgeryError, fail
from sesurgery.onnxgraph import branches as _branches
from sesurgery.onnxgraph import io as onnx_io
from sesurgery.spec.engines import Precision

WORDS = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "double": "fp64"}
CONVOLUTIONS = ("Conv", "ConvTranspose")
SCOPES = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True)
class OnnxFile:
    """A valid ONNX file; `model` holds its structure and inferred types, but not the weights kept outside it."""

    path: Path
    model: onnx.ModelProto

    def convolutions(self) -> dict[str, int]:
        """How many convolutions compute in which type: {"fp16": 53}; int8 is where both operands are dequantized.

        Those that an `If` chooses between are all counted.
        """
        types = {
            value.name: value.type.tensor_type.elem_type
            for graph in _branches.graphs(self.model.graph)
            for value in (*graph.value_info, *graph.output)
        }
        nodes = list(_branches.nodes(self.model.graph))
        dequantized = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
        return dict(
            Counter(
                "int8"
                if dequantized.issuperset(node.input[:2])
                else word(_dtype_name(types.get(node.output[0], TensorProto.UNDEFINED)))
                for node in nodes
                if node.op_type in CONVOLUTIONS
            )
        )

    def output_types(self) -> dict[str, str]:
        """The declared types of the outputs, in ONNX's words."""
        return {value.name: _dtype_name(value.type.tensor_type.elem_type) for value in self.model.graph.output}

    def fixed_batches(self) -> dict[str, int]:
        """The inputs whose first dimension is a number, with that number."""
        weights = {tensor.name for tensor in self.model.graph.initializer}
        shapes = {v.name: v.type.tensor_type.shape.dim for v in self.model.graph.input if v.name not in weights}
        return {name: dims[0].dim_value for name, dims in shapes.items() if dims and dims[0].HasField("dim_value")}

    def scope(self, node_name: str) -> str:
        """The module path that owns a node, as torch's exporter wrote it down; empty if it is not known."""
        for node in self.model.graph.node:
            if node.name == node_name:
                # A list of nested scopes in Python's notation, the node's own name last.
                scopes = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "")
                names = [part.strip(" '\"") for part in scopes.strip("[]").split(",")]
                return names[-2] if len(names) > 1 else ""
        return ""


def read(path: Path) -> OnnxFile:
    """Read and check an ONNX file with shape inference; raises SE602 if it is not valid."""
    if not path.is_file():
        raise fail("SE402", f"{path} is not there", "export the model first")
    try:
        model = onnx.load(path, load_external_data=False)
        onnx_io.outside(model, path)
        # By path: it finds weights outside the file, and takes more than 2 GB.
        onnx.checker.check_model(str(path), full_check=True)
        inferred = onnx.shape_inference.infer_shapes(model)
    except SesurgeryError:
        raise
    except Exception as error:  # the checker raises ValidationError, InferenceError, DecodeError, OSError and more
        raise fail("SE602", f"{path} is not a valid ONNX model: {error}", "export it again") from error
    # An empty graph is valid ONNX and builds into an engine that does nothing.
    if not inferred.graph.node or not inferred.graph.output:
        raise fail("SE602", f"{path} holds no network: it has no nodes or no outputs", "export it again")
    return OnnxFile(path, inferred)


def fixed_batch_notes(source: OnnxFile, batch: BatchRange) -> tuple[str, ...]:
    """Notes for the report where the file fixes the batch."""
    return tuple(
        f"input {name!r} has a fixed batch of {size} in the file: {batch.minimum} to {batch.maximum} does not apply"
        for name, size in source.fixed_batches().items()
        if (batch.minimum, batch.maximum) != (size, size)
    )


def prove_precision(asked: Precision, convolutions: Mapping[str, int], where: str) -> None:
    """Raises SE605 unless the convolutions found in `where` have the precision asked for.

    Some convolutions of an fp16 network are fp32 on purpose (the gates), an fp32 network has only fp32 ones.
    """
    found = ", ".join(f"{count} {name}" for name, count in sorted(convolutions.items())) or "none at all"
    if asked != "fp32" and not convolutions.get(asked):
        raise fail(
            "SE605",
            f"{where} has no {asked} convolution (found: {found})",
            f"build it with sesurgery build-engine --{asked}, which writes the file in that precision first",
        )
    if asked == "fp32" and set(convolutions) - {"fp32"}:
        raise fail(
            "SE605",
            f"{where} has convolutions that are not fp32 (found: {found})",
            "build fp32 from the ONNX file that was exported, not from a lowered one",
        )


def word(dtype: str) -> str:
    """`FLOAT16` -> `fp16`: one word for a type, whichever library named it."""
    return WORDS.get(dtype.lower(), dtype.lower())


def _dtype_name(dtype: int) -> str:
    return str(TensorProto.DataType.Name(dtype))
