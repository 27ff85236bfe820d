"""The version of ONNX's own operators that a model is written in, and models of a newer one."""

from __future__ import annotations

import onnx
from onnx import version_converter


def opset(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators; 0 where the model imports none."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def convert(model: onnx.ModelProto, wanted: int) -> onnx.ModelProto | str:
    """A copy in opset `wanted`, in its own where that is as new; or why onnx's converter does not get there."""
    if opset(model) >= wanted:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return copy
    try:
        converted = version_converter.convert_version(model, wanted)
        onnx.checker.check_model(converted, full_check=True)
    except Exception as error:  # it raises RuntimeError and ConvertError, by operator
        first = str(error).strip().splitlines()
        return f"it does not convert from opset {opset(model)}: {first[0] if first else type(error).__name__}"
    # The converter drops what it does not know: where a node came from.
    metadata = {node.output[0]: node.metadata_props for node in model.graph.node if node.output}
    for node in converted.graph.node:
        node.metadata_props.extend(metadata.get(node.output[0] if node.output else "", ()))
    converted.metadata_props.extend(model.metadata_props)
    return converted
