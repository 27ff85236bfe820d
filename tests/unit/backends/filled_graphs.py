"""Graphs in text whose declared values become weights."""

import numpy as np
import onnx
from onnx import numpy_helper


def filled(model: onnx.ModelProto, seed: int = 0) -> onnx.ModelProto:
    """The model itself, with random weights for its declared values, and nodes named after their outputs."""
    random = np.random.default_rng(seed)
    for weight in model.graph.value_info:
        shape = [dim.dim_value for dim in weight.type.tensor_type.shape.dim]
        array = random.normal(0, 0.3, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, weight.name))
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.name = f"node_{node.output[0]}"
    return model
