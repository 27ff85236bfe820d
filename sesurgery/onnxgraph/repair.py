"""Repair what runtimes ignore: sizes below one, duplicate keys, shapes of another input, nodes out of order.

Onnx's checker and shape inference do not ignore these errors. What nodes and weights hold is not changed.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from google.protobuf.message import Message
from onnx import StringStringEntryProto, ValueInfoProto

from sesurgery.onnxgraph.branches import graphs
from sesurgery.onnxgraph.inference import without_weights
from sesurgery.onnxgraph.nodes import ONNX_DOMAINS, captured, unique

NAMELESS = ("", "?", "-1", "None")
"""Placeholders of exporters for unknown sizes. They are not names: two of them need not be the same size."""


def repaired(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with repaired metadata, and each node behind those that it reads."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for graph in graphs(copy.graph):
        sort_nodes(graph)
    merge_metadata(copy)
    name_open_sizes(copy)
    forget_shapes(copy)
    return copy


def decode_names(message: Message) -> None:
    """Replace invalid bytes in names that are not UTF-8. C++ runtimes accept them; protobuf returns them as bytes."""
    for field, value in message.ListFields():
        single = isinstance(value, (str, bytes, Message)) or not hasattr(value, "__len__")
        for index, item in enumerate([value] if single else value):
            if isinstance(item, onnx.TensorProto):
                # Iterating over its fields would copy its data.
                item.name = _text(item.name)
            elif isinstance(item, Message):
                decode_names(item)
            elif field.type == field.TYPE_STRING and isinstance(item, bytes):
                if single:
                    setattr(message, field.name, _text(item))
                else:
                    value[index] = _text(item)
            elif field.type != field.TYPE_STRING:
                break


def _text(name: str | bytes) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else name


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put each node behind those that it reads, all else in the file's order; as it is where they read in a circle.

    ONNX Runtime sorts nodes itself.
    """
    maker = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    reads = [
        [maker[name] for name in (*node.input, *captured(node)) if maker.get(name, index) != index]
        for index, node in enumerate(graph.node)
    ]
    order: dict[int, None] = {}
    for first in range(len(reads)):
        pending, waiting = [first], set[int]()
        while pending:
            index = pending[-1]
            missing = [] if index in order else [other for other in reads[index] if other not in order]
            if not missing:
                order[pending.pop()] = None
            elif index in waiting:
                return
            else:
                waiting.add(index)
                pending += reversed(missing)
    if list(order) != sorted(order):
        nodes = [onnx.NodeProto.FromString(graph.node[index].SerializeToString()) for index in order]
        del graph.node[:]
        graph.node.extend(nodes)


def merge_metadata(model: onnx.ModelProto) -> None:
    """Keep each metadata key once, with its last value, as a reader with a dictionary would."""
    holders: list[object] = [model]
    for graph in graphs(model.graph):
        holders += [graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info]
    for holder in holders:
        listed = holder.metadata_props  # type: ignore[attr-defined]
        merged = {entry.key: entry.value for entry in listed}
        if len(merged) < len(listed):
            del listed[:]
            listed.extend(StringStringEntryProto(key=key, value=value) for key, value in merged.items())


def name_open_sizes(model: onnx.ModelProto) -> None:
    """Give every dynamic size of an input a unique name and those of outputs none; -1, 0 and `?` count as dynamic.

    The first dimension of an image is called `batch`.
    """
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    taken = {dim.dim_param for value in (*graph.input, *graph.output) for dim in _dims(value)} - set(NAMELESS)
    for value in graph.input:
        if value.name in weights:
            continue
        for axis, dim in enumerate(_dims(value)):
            if _is_open(dim):
                dim.dim_param = unique(f"{value.name}_{axis}" if axis else "batch", taken)
    for value in graph.output:
        for dim in _dims(value):
            if _is_open(dim):
                dim.Clear()


def forget_shapes(model: onnx.ModelProto) -> None:
    """Drop stored shapes of inner values, and of outputs if inference contradicts them.

    Inference does not know operators of other domains: stored shapes of their values are kept.
    """
    graph = model.graph
    opaque = {name for node in graph.node if node.domain not in ONNX_DOMAINS for name in node.output}
    kept = [value for value in graph.value_info if value.name in opaque]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    compute_outputs(model)


def compute_outputs(model: onnx.ModelProto) -> None:
    """Give an output the inferred shape where its own contradicts it, and the inferred type where it has none."""
    bare = without_weights(model)
    for value in bare.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph.output
    except Exception:  # what is known of an output then is what the file says
        return
    for value, found in zip(model.graph.output, inferred, strict=True):
        if not value.HasField("type") and found.type.tensor_type.elem_type:
            value.type.CopyFrom(found.type)
        elif found.type.tensor_type.HasField("shape") and not _agree(_dims(value), _dims(found)):
            value.type.tensor_type.shape.CopyFrom(found.type.tensor_type.shape)


def open_outputs(model: onnx.ModelProto) -> None:
    """Declare no size of any output, only their number of dimensions."""
    for value in model.graph.output:
        for dim in _dims(value):
            dim.Clear()


def free_weights(model: onnx.ModelProto) -> int:
    """Remove weights from the inputs, where files before IR version 4 list them; returns their number."""
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    kept = [value for value in graph.input if value.name not in weights]
    count = len(graph.input) - len(kept)
    if count:
        del graph.input[:]
        graph.input.extend(kept)
        model.ir_version = max(model.ir_version, 4)
    return count


def _dims(value: ValueInfoProto) -> Iterable[onnx.TensorShapeProto.Dimension]:
    return value.type.tensor_type.shape.dim  # type: ignore[no-any-return]


def _is_open(dim: onnx.TensorShapeProto.Dimension) -> bool:
    return dim.dim_value < 1 and dim.dim_param in NAMELESS


def _agree(stored: Iterable[onnx.TensorShapeProto.Dimension], found: Iterable[onnx.TensorShapeProto.Dimension]) -> bool:
    listed, inferred = list(stored), list(found)
    return len(listed) == len(inferred) and all(
        not (one.dim_value and other.dim_value) or one.dim_value == other.dim_value
        for one, other in zip(listed, inferred, strict=True)
    )
