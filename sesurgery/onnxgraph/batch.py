"""Fix the dynamic batch of a graph."""

from __future__ import annotations

import onnx
from onnx import ModelProto, ValueInfoProto

from sesurgery.onnxgraph.inference import inferred
from sesurgery.onnxgraph.io import LIMIT


def with_batch(model: ModelProto, size: int) -> ModelProto:
    """A copy in which a dynamic first dimension of inputs and outputs is `size`."""
    copy = ModelProto()
    copy.CopyFrom(model)
    for value in _open(copy):
        value.type.tensor_type.shape.dim[0].dim_value = size
    # They name the open batch.
    del copy.graph.value_info[:]
    return copy


def for_one_sample(model: ModelProto) -> ModelProto | None:
    """The same; None if nothing was dynamic, or if the shapes are inconsistent for one sample or cannot be inferred."""
    if not _open(model) or model.ByteSize() > LIMIT:
        return None
    single = with_batch(model, 1)
    try:
        inferred(single, check_types=True)
    except onnx.shape_inference.InferenceError:
        return None
    return single


def _open(model: ModelProto) -> list[ValueInfoProto]:
    weights = {tensor.name for tensor in model.graph.initializer}
    return [
        value
        for value in (*model.graph.input, *model.graph.output)
        if value.name not in weights and (dims := value.type.tensor_type.shape.dim) and dims[0].dim_value < 1
    ]
