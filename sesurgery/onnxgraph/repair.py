"""What a file says of itself and is not so: sizes below one, two values for one key, shapes of another input.

Runtimes pass over all of it, and onnx's checker and its shape inference do not. Nodes and weights are not touched.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from google.protobuf.message import Message
from onnx import StringStringEntryProto, ValueInfoProto

from sesurgery.onnxgraph.branches import graphs
from sesurgery.onnxgraph.inference import without_weights
from sesurgery.onnxgraph.nodes import ONNX_DOMAINS, unique

NAMELESS = ("", "?", "-1", "None")
"""What exporters call a size that they do not know: no name, since two of them need not be one size."""


def repaired(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that the checker accepts, as far as what is stored beside the nodes keeps it from that."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    merge_metadata(copy)
    name_open_sizes(copy)
    forget_shapes(copy)
    return copy


def decode_names(message: Message) -> None:
    """Make text of names that are no UTF-8, with marks for what is not: protobuf hands these out as bytes.

    Runtimes written in C++ take names as they come.
    """
    for field, value in message.ListFields():
        single = isinstance(value, (str, bytes, Message)) or not hasattr(value, "__len__")
        for index, item in enumerate([value] if single else value):
            if isinstance(item, onnx.TensorProto):
                # Listing its fields would copy its data.
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


def merge_metadata(model: onnx.ModelProto) -> None:
    """Let each key of metadata stand once, with the value that it has last, as readers into a dictionary see it."""
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
    """Give every open size of an input a name of its own, and of outputs none: -1 and 0 are open, `?` is no name.

    The first of an image is called `batch`.
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
    """Drop stored shapes of inner values, and of outputs those that inference contradicts.

    Operators of other domains are opaque to inference: what the file says of their values stays.
    """
    graph = model.graph
    opaque = {name for node in graph.node if node.domain not in ONNX_DOMAINS for name in node.output}
    kept = [value for value in graph.value_info if value.name in opaque]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    bare = without_weights(model)
    for value in bare.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph.output
    except Exception:  # what is known of an output then is what the file says
        return
    for value, found in zip(graph.output, inferred, strict=True):
        if found.type.tensor_type.HasField("shape") and not _agree(_dims(value), _dims(found)):
            value.type.tensor_type.shape.CopyFrom(found.type.tensor_type.shape)


def free_weights(model: onnx.ModelProto) -> int:
    """Let no weight be an input as well, as files before IR version 4 have it; gives how many were."""
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
