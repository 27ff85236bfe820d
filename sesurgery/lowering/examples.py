"""Tests of passes on graphs in ONNX's text form."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from sesurgery.lowering.base import Pass, run


def model(graph: str, *, opset: int = 20, seed: int = 0) -> onnx.ModelProto:
    """A model from ONNX's text form; declared values without content become random weights."""
    found = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> g {graph}')
    random = np.random.default_rng(seed)
    given = {tensor.name for tensor in found.graph.initializer}
    for weight in found.graph.value_info:
        if weight.name not in given:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(weight.type.tensor_type.elem_type)
            shape = [dim.dim_value for dim in weight.type.tensor_type.shape.dim]
            array = random.normal(0, 0.5, shape).astype(dtype)
            found.graph.initializer.append(numpy_helper.from_array(array, weight.name))
    del found.graph.value_info[:]
    return found


def examine(step: Pass, graph: str, changed: int, words: str) -> None:
    """Assert the number of changes and the reason, an unchanged function, and no change in a second run."""
    given = model(graph)
    lowered = run(given, [step], verify=True)
    assert sum(edit.changed for edit in lowered.edits) == changed, lowered.edits
    assert all(words in edit.why for edit in lowered.edits if edit.changed or not changed), lowered.edits
    again = run(lowered.model, [step])
    assert not any(edit.changed for edit in again.edits), again.edits
    assert again.model.graph.node == lowered.model.graph.node
