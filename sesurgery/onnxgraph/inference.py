"""Types and shapes of a graph's values, inferred without carrying its weights along.

onnx's inference takes a model as bytes and gives it back as bytes: of a large network that is seconds for weights whose
values it never reads.
"""

from __future__ import annotations

from math import prod

import onnx

from sesurgery.onnxgraph.tensor_data import bytes_of

# Larger tensors are weights: inference never reads their values, only small ones (axes, shapes, pads).
SMALL = 1024


def inferred(model: onnx.ModelProto, *, strict: bool = True, check_types: bool = False) -> onnx.GraphProto:
    """The graph with what inference finds, and without the values of its weights.

    Raises onnx's InferenceError where types do not work out; without `strict` only for some of that.
    """
    light = without_weights(model)
    options = {"check_type": check_types, "strict_mode": strict, "data_prop": True}
    graph: onnx.GraphProto = onnx.shape_inference.infer_shapes(light, **options).graph
    return graph


def typed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model itself, whose values have got the types and shapes that inference finds; raises InferenceError."""
    found = inferred(model)
    for listed, values in ((model.graph.value_info, found.value_info), (model.graph.output, found.output)):
        del listed[:]
        listed.extend(values)
    return model


def size_of(model: onnx.ModelProto) -> int:
    """Bytes of the model, to within the few that its own notes take: protobuf finds them by writing all weights."""
    weights = (tensor for tensor in model.graph.initializer if prod(tensor.dims) > SMALL)
    known = sum(bytes_of(each) or 0 if each.HasField("raw_data") else each.ByteSize() for each in weights)
    return known + int(without_weights(model).ByteSize())


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which weights have a type and a shape and no values."""
    copy = onnx.ModelProto(ir_version=model.ir_version)
    copy.opset_import.extend(model.opset_import)
    copy.functions.extend(model.functions)
    copy.graph.name = model.graph.name
    copy.graph.node.extend(model.graph.node)
    copy.graph.input.extend(model.graph.input)
    copy.graph.output.extend(model.graph.output)
    copy.graph.value_info.extend(model.graph.value_info)
    copy.graph.sparse_initializer.extend(model.graph.sparse_initializer)
    for tensor in model.graph.initializer:
        if prod(tensor.dims) <= SMALL:
            copy.graph.initializer.append(tensor)
        else:
            copy.graph.initializer.add(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
    return copy
