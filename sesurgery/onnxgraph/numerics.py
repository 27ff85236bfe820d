"""Run graphs on random inputs and compare their outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from sesurgery.diagnostics import SesurgeryError, clipped, fail, first_line
from sesurgery.onnxgraph.sessions import session as _session

Values = dict[str, NDArray[np.generic]]
Feeds = Mapping[str, NDArray[np.generic]]
BATCH = 2
"""Size used for a dynamic first dimension."""
SIZES = (
    *((64, 64), (32, 32), (96, 96), (224, 224), (48, 192), (48, 320), (32, 320), (32, 100)),
    *((256, 256), (299, 299), (320, 320), (512, 512), (640, 640)),
)
"""Sizes tried for a dynamic height and width: the first that the network accepts."""
COLOURS = 3
COARSE, GRAIN = 5, 0.1
"""Random images are smooth between this many values per side, with this much noise added."""
TINY = 1e-30
"""Smallest scale for comparing outputs, used if an output is all zero."""
MOST_VALUES = 2**26
"""Values of one input: 256 MB in fp32."""
ROUNDINGS = 16
"""Accepted difference in roundings of a graph's coarsest type, relative to the largest value."""
WITHOUT = "lower it without verification"
_COARSE = {TensorProto.FLOAT16: 2.0**-10, TensorProto.BFLOAT16: 2.0**-7}


def feeds(model: onnx.ModelProto, seed: int = 0) -> Values:
    """Random values for every input: images for maps, normal for other floats, zeros and ones for whole numbers.

    White noise is no image: networks that were trained amplify its rounding until nothing can be told from it.
    Raises SE602 if there are none: for what is no tensor of numbers, and for shapes that no memory holds.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    first = _random(inputs, seed, SIZES[0])
    if not any(_is_open(dim) for value in inputs for dim in value.type.tensor_type.shape.dim[1:]):
        return first
    try:
        session = _session(model, optimised=False)
    except Exception:  # running the graph will give the error
        return first
    for size in SIZES:
        fed = _random(inputs, seed, size)
        try:
            session.run(None, fed)
        except Exception:
            continue
        return fed
    return first


def _random(inputs: Sequence[onnx.ValueInfoProto], seed: int, size: tuple[int, int]) -> Values:
    random = np.random.default_rng(seed)
    found: Values = {}
    for value in inputs:
        kind = value.type.WhichOneof("value")
        if kind != "tensor_type" or value.type.tensor_type.elem_type in (TensorProto.STRING, TensorProto.UNDEFINED):
            what = "of text" if kind == "tensor_type" else f"a {(kind or 'value of no type').removesuffix('_type')}"
            raise _unproved(f"input {value.name!r} is {what}, and has no random values")
        shape = _shape(value, size)
        if min(shape, default=1) < 1 or math.prod(shape) > MOST_VALUES:
            raise _unproved(f"input {value.name!r} has the shape {shape}: 1 to {MOST_VALUES} values can be fed")
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        if not (np.issubdtype(dtype, np.floating) or value.type.tensor_type.elem_type in _COARSE):
            found[value.name] = random.integers(0, 2, shape).astype(dtype)
        else:
            made = random_image(random, shape) if len(shape) == 4 else random.normal(size=shape)
            found[value.name] = made.astype(dtype)
    return found


def _unproved(why: str) -> SesurgeryError:
    return fail("SE602", f"nothing can be proved about the graph: {why}", WITHOUT)


def rounding(model: onnx.ModelProto) -> float:
    """The difference that a graph's types explain: 0 for fp32, some roundings if values or weights have fewer bits.

    Two ways to compute the same function differ more in fp16 than in fp32.
    """
    graph = model.graph
    types = {tensor.data_type for tensor in graph.initializer}
    types |= {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output, *graph.value_info)}
    for node in graph.node:
        for attribute in node.attribute:
            types |= {attribute.i} if node.op_type == "Cast" and attribute.name == "to" else {attribute.t.data_type}
    return ROUNDINGS * max((unit for kind, unit in _COARSE.items() if kind in types), default=0.0)


def _shape(value: onnx.ValueInfoProto, size: tuple[int, int]) -> list[int]:
    """The sizes of an input, with the given height and width if they are dynamic; a map if it has no shape."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return [BATCH, COLOURS, *size]
    # A stored size of 0 is no open one: nothing can be computed of an empty input.
    shape = [-1 if _is_open(dim) else int(dim.dim_value) for dim in tensor.shape.dim]
    if shape and shape[0] < 0:
        shape[0] = BATCH
    if len(shape) == 4 and shape[1:].count(-1) == 3:
        shape[1] = COLOURS
    given = iter(size if shape.count(-1) > 1 else size[1:])
    return [next(given, size[1]) if length < 0 else length for length in shape]


def _is_open(dim: onnx.TensorShapeProto.Dimension) -> bool:
    return not dim.HasField("dim_value") or bool(dim.dim_value < 0)


def random_image(random: np.random.Generator, shape: Sequence[int]) -> NDArray[np.float64]:
    """Low frequencies along the two longest sides with a little noise; the variance is about 1."""
    image = random.normal(size=[length if axis == 0 else min(length, COARSE) for axis, length in enumerate(shape)])
    for axis, length in enumerate(shape[1:], start=1):
        few = image.shape[axis]
        if few < length:
            at = np.linspace(0, few - 1, length)
            weights = np.maximum(0.0, 1.0 - np.abs(at[:, None] - np.arange(few)))
            image = np.moveaxis(np.tensordot(weights, image, (1, axis)), 0, axis)
    image = image / max(float(image.std()), TINY)
    made: NDArray[np.float64] = image + GRAIN * random.normal(size=tuple(shape))
    return made


def outputs(model: onnx.ModelProto, fed: Feeds) -> Values:
    """All outputs, computed by ONNX Runtime on the CPU without its own rewriting; raises SE602 if it cannot."""
    return {name: values[0] for name, values in outputs_of_all(model, [fed]).items()}


def outputs_of_all(model: onnx.ModelProto, samples: Sequence[Feeds]) -> Values:
    """The outputs of each of several feeds, stacked; they must be of one shape."""
    try:
        session = _session(model, optimised=False)
        found = [session.run(None, dict(feeds)) for feeds in samples]
        names = [value.name for value in model.graph.output]
        values = {name: np.stack([one[index] for one in found]) for index, name in enumerate(names)}
    except Exception as error:  # its exceptions share no base class but Exception
        text = f"ONNX Runtime cannot run the graph, so nothing can be proved about it: {error}"
        raise fail("SE602", text, WITHOUT) from error
    if not any(np.issubdtype(value.dtype, np.number) or value.dtype == np.bool_ for value in values.values()):
        raise _unproved("no output is a tensor of numbers")
    if not any(value.size for value in values.values()):
        raise _unproved("its outputs are empty")
    return values


def runner(model: onnx.ModelProto) -> Callable[[Feeds], Values]:
    """Runs a model again and again as `outputs` does, from one session; raises SE602 if it cannot.

    Floating-point feeds get the type that the model declares.
    """
    try:
        session = _session(model, optimised=False)
    except Exception as error:
        raise fail("SE602", f"ONNX Runtime cannot load the graph: {error}") from error
    names = [value.name for value in model.graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}

    def run(fed: Feeds) -> Values:
        try:
            typed = {name: _typed(array, types.get(name, TensorProto.UNDEFINED)) for name, array in fed.items()}
            return dict(zip(names, session.run(names, typed), strict=True))
        except Exception as error:  # its exceptions share no base class but Exception
            raise fail("SE602", f"ONNX Runtime cannot run the graph: {clipped(first_line(error), 400)}") from error

    return run


def _typed(array: NDArray[np.generic], wanted: int) -> NDArray[np.generic]:
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
    known = array.dtype.kind == "f" and wanted in floats
    return array.astype(onnx.helper.tensor_dtype_to_np_dtype(wanted)) if known else array


def difference(reference: Values, found: Values) -> float:
    """The largest difference of any output over the largest value of that output; infinite if shapes differ.

    Values that are not finite in one must be the same in the other.
    """
    worst = 0.0
    for name, expected in reference.items():
        other = found[name]
        if expected.shape != other.shape or expected.dtype != other.dtype:
            return np.inf
        if not np.issubdtype(expected.dtype, np.floating):
            worst = max(worst, float(not np.array_equal(expected, other)))
            continue
        known = np.isfinite(expected)
        if not np.array_equal(expected[~known], other[~known], equal_nan=True):
            return np.inf
        if not np.array_equal(known, np.isfinite(other)):
            return np.inf
        gap = np.abs(expected[known].astype(np.float64) - other[known].astype(np.float64))
        scale = np.abs(expected[known].astype(np.float64)).max(initial=0.0)
        worst = max(worst, float(gap.max(initial=0.0)) / max(float(scale), TINY))
    return worst
