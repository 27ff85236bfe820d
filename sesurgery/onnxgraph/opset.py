"""Opsets: a block is exported at opset 20 and converted down to the file's opset, or the file is converted up.

Most newer versions of an operator only allow more types. The other changes are rewritten: since opset 18 (13 for
Squeeze, Unsqueeze and ReduceSum) axes are an input instead of an attribute.
"""

from __future__ import annotations

import onnx
from onnx import NodeProto, TensorProto

from sesurgery.diagnostics import fail, first_line
from sesurgery.onnxgraph.nodes import ONNX_DOMAINS, name_nodes

OPSET = 20  # what blocks are exported at
OLDEST, NEWEST = 7, 23

_AXES_INPUT_SINCE = {
    "Squeeze": 13, "Unsqueeze": 13, "ReduceSum": 13, "ReduceMean": 18, "ReduceMax": 18, "ReduceMin": 18,
    "ReduceL1": 18, "ReduceL2": 18,
}  # fmt: skip
# Values with which later attributes have no effect.
_DEFAULTS = {
    "allowzero": 0, "start": 0, "saturate": 1, "training_mode": 0, "ceil_mode": 0, "noop_with_empty_axes": 0,
    "dilations": [1, 1],
}  # fmt: skip
# From this version on an operator means the same as at opset 20 for float maps.
_SAME_SINCE = {
    "Add": 7, "Sub": 7, "Mul": 7, "Div": 7, "Pow": 7, "Relu": 6, "Sigmoid": 6, "Tanh": 6, "HardSigmoid": 6, "Conv": 1,
    "Identity": 1, "Concat": 4, "Shape": 1, "Reshape": 5, "Transpose": 1, "MatMul": 1, "Gemm": 7, "Exp": 6, "Sqrt": 6,
    "Erf": 9, "Clip": 11, "Max": 8, "Min": 8, "Expand": 8, "GlobalAveragePool": 1, "GlobalMaxPool": 1, "Cast": 9,
    "BatchNormalization": 9, "InstanceNormalization": 6, "Flatten": 9, "Gather": 1, "Softmax": 13, "Slice": 10,
    "Constant": 1, "AveragePool": 7, "MaxPool": 8, "Neg": 6, "Reciprocal": 6, "Softplus": 1, "Where": 9,
}  # fmt: skip


def opset(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that a model is written in; 0 where it imports none."""
    return max((item.version for item in model.opset_import if item.domain in ONNX_DOMAINS), default=0)


def changeable_opset(model: onnx.ModelProto) -> int:
    """The same; raises SE602 if it is outside the range that the surgeon supports."""
    found = opset(model)
    if not OLDEST <= found <= NEWEST:
        text = f"the ONNX file is of opset {found}; {OLDEST} to {NEWEST} can be changed"
        raise fail("SE602", text, "convert it with onnx.version_converter")
    return found


def needed(block: onnx.ModelProto, target: int) -> int:
    """The lowest opset, at least `target`, to which a block's graph can be converted down."""
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in block.graph.initializer}
    axes = [
        constants[node.input[1]]
        for node in block.graph.node
        if node.op_type in _AXES_INPUT_SINCE and len(node.input) > 1 and node.input[1] in constants
    ]
    # Axes count from the end since opset 11.
    least = max(target, 11) if any((given < 0).any() for given in axes) else target
    return max((_needs(node, least) for node in block.graph.node), default=target)


def lower(block: onnx.ModelProto, target: int) -> onnx.ModelProto:
    """The block's graph in the operators of an opset that `needed` allows."""
    lowered = onnx.ModelProto()
    lowered.CopyFrom(block)
    constants = {tensor.name: tensor for tensor in lowered.graph.initializer}
    for node in lowered.graph.node:
        since = _AXES_INPUT_SINCE.get(node.op_type)
        if since is not None and target < since and len(node.input) > 1:
            axes = onnx.numpy_helper.to_array(constants[node.input[1]]).ravel().tolist()
            del node.input[1:]
            node.attribute.append(onnx.helper.make_attribute("axes", axes))
        for item in _newer(node, target):
            node.attribute.remove(item)
    used = {name for node in lowered.graph.node for name in node.input}
    kept = [tensor for tensor in lowered.graph.initializer if tensor.name in used]
    del lowered.graph.initializer[:]
    lowered.graph.initializer.extend(kept)
    return lowered


def raised(model: onnx.ModelProto, target: int) -> onnx.ModelProto:
    """The file in the operators of a newer opset; raises SE602 if onnx cannot convert it.

    Nodes that mean the same at both opsets stay as they are; where one does not, onnx's converter takes over.
    """
    if not any(_changed(node, opset(model), target) for node in model.graph.node):
        done = onnx.ModelProto()
        done.CopyFrom(model)
    else:
        done = _converted(model, target)
    for item in done.opset_import:
        if item.domain in ONNX_DOMAINS:
            item.version = target
    # An opset needs at least the IR version that it was released with.
    done.ir_version = max(done.ir_version, onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", target)]))
    return done


def convert(model: onnx.ModelProto, wanted: int) -> onnx.ModelProto | str:
    """A copy in opset `wanted`, or in its own opset if that is newer; or the reason why onnx cannot convert it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if opset(model) >= wanted:
        return copy
    try:
        converted = raised(copy, wanted)
        onnx.checker.check_model(converted, full_check=True)
    except Exception as error:  # RuntimeError or ConvertError, depending on the operator
        return f"it does not convert from opset {opset(model)}: {first_line(error.__cause__ or error)}"
    return converted


def _needs(node: NodeProto, target: int) -> int:
    since = int(onnx.defs.get_schema(node.op_type, OPSET, node.domain).since_version)
    if since <= target:
        return target
    if node.op_type in _AXES_INPUT_SINCE:
        # In older opsets axes are an attribute with the same meaning.
        return target
    told = [item for item in _newer(node, target) if onnx.helper.get_attribute_value(item) != _DEFAULTS.get(item.name)]
    if told:
        return next(
            (version for version in range(target, OPSET) if not set(_names(_newer(node, version))) & set(_names(told))),
            OPSET,
        )
    return max(target, _SAME_SINCE.get(node.op_type, since))


def _changed(node: NodeProto, before: int, after: int) -> bool:
    if node.domain not in ONNX_DOMAINS:
        return False
    try:
        old = onnx.defs.get_schema(node.op_type, before).since_version
        new = onnx.defs.get_schema(node.op_type, after).since_version
    except onnx.defs.SchemaError:
        return True
    return bool(old != new and _SAME_SINCE.get(node.op_type, new) > before)


def _converted(model: onnx.ModelProto, target: int) -> onnx.ModelProto:
    try:
        converted = onnx.version_converter.convert_version(model, target)
    except Exception as error:
        text = f"the ONNX file cannot be raised to opset {target}: {first_line(error)}"
        raise fail("SE602", text, "export the file again at that opset") from error
    _keep_words(model, converted)
    name_nodes(converted.graph)
    done = onnx.ModelProto()
    done.CopyFrom(model)
    done.graph.CopyFrom(converted.graph)
    return done


def _keep_words(model: onnx.ModelProto, converted: onnx.ModelProto) -> None:
    """Restore the metadata and doc strings that the converter drops."""
    graph, new = model.graph, converted.graph
    new.doc_string, new.name = graph.doc_string, graph.name
    for field in ("metadata_props", "quantization_annotation", "sparse_initializer"):
        new.ClearField(field)
        getattr(new, field).extend(getattr(graph, field))
    known = {node.output[0]: node for node in graph.node if node.output}
    for node in new.node:
        old = known.get(node.output[0]) if node.output else None
        if old is not None:
            written = NodeProto()
            written.CopyFrom(old)
            if (written.op_type, written.input) != (node.op_type, node.input) or not _same_attributes(old, node):
                written.op_type, written.input[:] = node.op_type, list(node.input)
                del written.attribute[:]
                written.attribute.extend(node.attribute)
            node.CopyFrom(written)
    for listed, before in ((new.input, graph.input), (new.output, graph.output), (new.value_info, graph.value_info)):
        kept = list(before)
        del listed[:]
        listed.extend(kept)
    own = {tensor.name for tensor in graph.initializer}
    added = [tensor for tensor in new.initializer if tensor.name not in own]
    del new.initializer[:]
    new.initializer.extend((*graph.initializer, *added))


def _same_attributes(one: NodeProto, other: NodeProto) -> bool:
    return sorted(item.SerializeToString() for item in one.attribute) == sorted(
        item.SerializeToString() for item in other.attribute
    )


def _newer(node: NodeProto, target: int) -> list[onnx.AttributeProto]:
    """The attributes that the operator does not have at an opset."""
    try:
        known = onnx.defs.get_schema(node.op_type, target, node.domain).attributes
    except onnx.defs.SchemaError:
        return []
    return [item for item in node.attribute if item.name not in known]


def _names(attributes: list[onnx.AttributeProto]) -> list[str]:
    return [item.name for item in attributes]


def cast(block: onnx.ModelProto, dtype: int) -> onnx.ModelProto:
    """The block's graph with all floats in another float type."""
    done = onnx.ModelProto()
    done.CopyFrom(block)
    if dtype == TensorProto.FLOAT:
        return done
    wanted = onnx.helper.tensor_dtype_to_np_dtype(dtype)
    for tensor in done.graph.initializer:
        _retype(tensor, dtype, wanted)
    for node in done.graph.node:
        for item in node.attribute:
            if item.type == onnx.AttributeProto.TENSOR:
                _retype(item.t, dtype, wanted)
            elif node.op_type == "Cast" and item.name == "to" and item.i == TensorProto.FLOAT:
                item.i = dtype
    for value in (*done.graph.input, *done.graph.output):
        value.type.tensor_type.elem_type = dtype
    return done


def _retype(tensor: TensorProto, dtype: int, wanted: object) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        array = onnx.numpy_helper.to_array(tensor).astype(wanted)  # type: ignore[call-overload]
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
