"""Types and shapes of every value of an ONNX file, inferred on a copy without weights for a given input shape.

Files have no shapes, static ones, symbolic ones, or stale ones. Therefore stored shapes of inner values are ignored.
Those of inputs are used, and must agree with the spec.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, TypeProto

from sesurgery.diagnostics import fail, first_line
from sesurgery.graph import Shape
from sesurgery.onnxgraph.inference import SMALL, without_weights
from sesurgery.onnxgraph.layout import TO_FIRST, channels_last, turned
from sesurgery.onnxgraph.nodes import ONNX_DOMAINS

MOST_COLOURS = 4


class Values:
    """The inferred type and dimensions of each value of a graph."""

    def __init__(
        self,
        types: dict[str, TypeProto.Tensor],
        weights: dict[str, TensorProto],
        constants: dict[str, NDArray[np.generic]],
    ) -> None:
        self._types = types
        self._weights = weights
        self.constants = constants
        """Small values that nodes compute only from constants and sizes, for this image size."""
        self.last: frozenset[str] = frozenset()
        """The channels-last values."""
        self.converters = True
        """Whether a converter caused them, not the network's author."""
        self.map_rank = 4
        """The dimensions of a map with its batch: five in a network of 3-d convolutions."""

    def dtype(self, name: str) -> int:
        """The ONNX element type; UNDEFINED if inference does not know it."""
        if name in self._weights:
            return int(self._weights[name].data_type)
        return int(self._types[name].elem_type) if name in self._types else TensorProto.UNDEFINED

    def dims(self, name: str) -> tuple[int | None, ...] | None:
        """The dimensions, None if unknown; None as a whole where the rank is unknown."""
        if name in self._weights:
            return tuple(self._weights[name].dims)
        if name not in self._types or not self._types[name].HasField("shape"):
            return None
        return tuple(
            dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
            for dim in self._types[name].shape.dim
        )

    def map(self, name: str) -> Shape | None:
        """(channels, height, width) of a map in whichever layout, or (channels, time, height, width); else None."""
        dims = self.dims(name)
        if dims is None or len(dims) != self.map_rank:
            return None
        sizes = tuple(size for size in dims[1:] if size is not None)
        if len(sizes) < len(dims) - 1:
            return None
        return (sizes[-1], *sizes[:-1]) if name in self.last else sizes

    def rank(self, name: str) -> int | None:
        """The number of dimensions, or None if it is unknown."""
        dims = self.dims(name)
        return None if dims is None else len(dims)


@dataclass(frozen=True)
class Folded:
    """The types and constants of a graph's values after constant folding of sizes."""

    types: dict[str, TypeProto.Tensor]
    constants: dict[str, NDArray[np.generic]]


def folded(skeleton: onnx.ModelProto) -> Folded:
    """Types and constants of a skeleton that computes sizes in the graph, which plain inference does not do.

    Empty if folding fails.
    """
    import onnx_ir as ir

    from sesurgery.onnxgraph.simplify import fold

    copy = onnx.ModelProto()
    copy.CopyFrom(skeleton)
    own = {tensor.name for tensor in copy.graph.initializer}
    given = {value.name for value in copy.graph.input}
    small = [tensor for tensor in copy.graph.initializer if prod(tensor.dims) <= SMALL]
    # A weight without its values stands as an input of its type.
    large = [tensor for tensor in copy.graph.initializer if prod(tensor.dims) > SMALL and tensor.name not in given]
    copy.graph.input.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in large
    )
    kept = [value for value in copy.graph.input if value.name not in {tensor.name for tensor in small}]
    del copy.graph.input[:]
    copy.graph.input.extend(kept)
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(small)
    copy.ir_version = max(copy.ir_version, 4)
    try:
        graph = ir.from_proto(copy)
        fold(graph)
        done: onnx.ModelProto = ir.to_proto(graph)
    except Exception:  # the file may contain any operator
        return Folded({}, {})
    listed = (*done.graph.input, *done.graph.output, *done.graph.value_info)
    constants = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in done.graph.initializer
        if tensor.name not in own and prod(tensor.dims) <= SMALL
    }
    return Folded({value.name: value.type.tensor_type for value in listed}, constants)


def _is_partial(graph: onnx.GraphProto, types: dict[str, TypeProto.Tensor]) -> bool:
    """Whether the output of any standard ONNX node has an incomplete shape."""
    return any(
        name and (name not in types or not _is_whole(types[name]))
        for node in graph.node
        if node.domain in ONNX_DOMAINS
        for name in node.output
    )


def _is_whole(known: TypeProto.Tensor) -> bool:
    return known.HasField("shape") and all(dim.HasField("dim_value") for dim in known.shape.dim)


def _fuller(one: TypeProto.Tensor | None, other: TypeProto.Tensor | None) -> TypeProto.Tensor:
    """The one of two types of a value that has the more complete shape."""
    if one is None or other is None:
        known = one or other
        assert known is not None
        return known
    return other if not _is_whole(one) and other.HasField("shape") else one


def infer(model: onnx.ModelProto, shape: Shape | None = None) -> Values:
    """The inferred types; with `shape` (channels, height, width) the first input is an image of that size.

    With (channels, time, height, width) it is a clip.

    Raises SE304 if the file's input is another one, SE602 if the file's own types contradict one another.
    """
    copy = skeleton(model)
    last = shape is not None and _set_input(copy, shape)
    try:
        inferred = onnx.shape_inference.infer_shapes(copy, strict_mode=True, data_prop=True).graph
    except Exception:
        try:
            # Unknown operators end strict inference; the types without them are enough for planning.
            inferred = onnx.shape_inference.infer_shapes(copy, strict_mode=False, data_prop=True).graph
        except Exception as error:
            raise fail("SE602", f"the types of the ONNX file do not work out: {first_line(error)}") from error
    listed = (*inferred.input, *inferred.output, *inferred.value_info)
    types = {value.name: value.type.tensor_type for value in listed if value.type.HasField("tensor_type")}
    found = folded(copy) if _is_partial(copy.graph, types) else Folded({}, {})
    types = {name: _fuller(types.get(name), found.types.get(name)) for name in {**types, **found.types}}
    values = Values(types, {tensor.name: tensor for tensor in model.graph.initializer}, found.constants)
    values.map_rank = 4 if shape is None else len(shape) + 1
    given = (image_input(model).name,) if last else ()
    values.last, values.converters = channels_last(model.graph.node, given, values.rank)
    return values


def skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without the values of its weights and without stored shapes of inner values."""
    copy = without_weights(model)
    # Inference does not know operators of other domains: the shapes of their outputs are those in the file.
    opaque = {name for node in model.graph.node if node.domain not in ONNX_DOMAINS for name in node.output}
    kept = [value for value in copy.graph.value_info if value.name in opaque]
    del copy.graph.value_info[:]
    copy.graph.value_info.extend(kept)
    return copy


def image_input(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """The first input that is no weight; raises SE602 if there is none."""
    weights = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name not in weights:
            given: onnx.ValueInfoProto = value
            return given
    raise fail("SE602", "the ONNX file has no input that is not a weight")


def image_shape(model: onnx.ModelProto) -> Shape | None:
    """(channels, height, width) of the first input if the file has all three, channels first or last.

    Of a clip (channels, time, height, width), channels first.
    """
    dims = [dim.dim_value for dim in image_input(model).type.tensor_type.shape.dim]
    if len(dims) not in (4, 5) or min(dims[1:]) < 1:
        return None
    if len(dims) == 5:
        return tuple(dims[1:])
    # An image has few channels and many rows: otherwise the channels are last.
    last = dims[3] <= MOST_COLOURS < dims[1]
    return (dims[3], dims[1], dims[2]) if last else (dims[1], dims[2], dims[3])


def takes_channels_last(model: onnx.ModelProto) -> bool:
    """Whether all readers of the image transpose it to [N, C, H, W], so the input is [N, H, W, C]."""
    name = image_input(model).name
    orders = [turned(node) for node in model.graph.node if name in node.input]
    return bool(orders) and all(order == TO_FIRST for order in orders)


def _set_input(copy: onnx.ModelProto, shape: Shape) -> bool:
    """Set the size of the image; returns whether its channels are last."""
    value = image_input(copy)
    tensor = value.type.tensor_type
    dims = list(tensor.shape.dim) if tensor.HasField("shape") else []
    fixed = [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in dims]
    rank, orders = len(shape) + 1, {False: shape, True: (*shape[1:], shape[0])}
    turns = takes_channels_last(copy)
    # If the readers suggest otherwise, the sizes in the file decide where the channels are.
    said = {False: len(fixed) == rank and fixed[1] is not None, True: len(fixed) == rank and fixed[-1] is not None}
    # Clips are read with their channels first alone.
    known = (turns, not turns) if rank == 4 else (False,)
    fitting = [
        last
        for last in known
        if (not dims or (len(dims) == rank and _fits(fixed[1:], orders[last]))) and (last == turns or said[last])
    ]
    if not fitting:
        found = "x".join("?" if own is None else str(own) for own in fixed[1:])
        text = f"the ONNX file does not take an input of {'x'.join(map(str, shape))}: its input is {found}"
        raise fail("SE304", text, "change 'input: shape'")
    batch = fixed[0] if fixed and fixed[0] else 1
    tensor.ClearField("shape")
    for size in (batch, *orders[fitting[0]]):
        tensor.shape.dim.add(dim_value=size)
    # Outputs may carry sizes that belong to another input.
    for output in copy.graph.output:
        output.type.tensor_type.ClearField("shape")
    return fitting[0]


def _fits(fixed: list[int | None], sizes: tuple[int, ...]) -> bool:
    return all(own in (None, size) for own, size in zip(fixed, sizes, strict=True))
