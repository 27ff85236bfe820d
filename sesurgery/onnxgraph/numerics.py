"""What a graph computes on random inputs, and how far two graphs are apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto

from sesurgery.diagnostics import SesurgeryError, fail

Values = dict[str, NDArray[np.generic]]
Feeds = Mapping[str, NDArray[np.generic]]
BATCH, SIZE = 2, 64
"""What stands for an open first dimension, and for any other."""
TINY = 1e-30
"""An output that is all zero is compared with this."""
MOST_VALUES = 2**26
"""Of one input: 256 MB in fp32."""
ROUNDINGS = 16
"""How many roundings of its coarsest type a graph's outputs may be apart, relative to the largest value."""
WITHOUT = "lower it without verification"
_COARSE = {TensorProto.FLOAT16: 2.0**-10, TensorProto.BFLOAT16: 2.0**-7}


def feeds(model: onnx.ModelProto, seed: int = 0) -> Values:
    """Random values for every input: normal for floats, zeros and ones for whole numbers.

    Raises SE602 where there are none: for what is no tensor of numbers, and for shapes that no memory holds.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    random = np.random.default_rng(seed)
    found: Values = {}
    for value in model.graph.input:
        if value.name in weights:
            continue
        kind = value.type.WhichOneof("value")
        if kind != "tensor_type" or value.type.tensor_type.elem_type in (TensorProto.STRING, TensorProto.UNDEFINED):
            what = "of text" if kind == "tensor_type" else f"a {(kind or 'value of no type').removesuffix('_type')}"
            raise _unproved(f"input {value.name!r} is {what}, for which no random values are made")
        dims = value.type.tensor_type.shape.dim
        shape = [
            dim.dim_value if dim.HasField("dim_value") else SIZE if axis else BATCH for axis, dim in enumerate(dims)
        ]
        if min(shape, default=1) < 1 or math.prod(shape) > MOST_VALUES:
            raise _unproved(f"input {value.name!r} has the shape {shape}: 1 to {MOST_VALUES} values can be fed")
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        floats = np.issubdtype(dtype, np.floating) or value.type.tensor_type.elem_type in _COARSE
        found[value.name] = (random.normal(size=shape) if floats else random.integers(0, 2, shape)).astype(dtype)
    return found


def _unproved(why: str) -> SesurgeryError:
    return fail("SE602", f"nothing can be proved about the graph: {why}", WITHOUT)


def rounding(model: onnx.ModelProto) -> float:
    """What the types of a graph explain of a difference: 0 for fp32, some roundings where values or weights are less.

    Two ways to compute one function in fp16 are further apart than in fp32, whatever pass changed one to the other.
    """
    graph = model.graph
    types = {tensor.data_type for tensor in graph.initializer}
    types |= {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output, *graph.value_info)}
    for node in graph.node:
        for attribute in node.attribute:
            types |= {attribute.i} if node.op_type == "Cast" and attribute.name == "to" else {attribute.t.data_type}
    return ROUNDINGS * max((unit for kind, unit in _COARSE.items() if kind in types), default=0.0)


def outputs(model: onnx.ModelProto, fed: Feeds) -> Values:
    """All outputs, computed by ONNX Runtime on the CPU without its own rewriting; raises SE602 where it cannot."""
    return {name: values[0] for name, values in outputs_of_all(model, [fed]).items()}


def outputs_of_all(model: onnx.ModelProto, samples: Sequence[Feeds]) -> Values:
    """The outputs of each of several feeds, stacked; they must be of one shape."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found = [session.run(None, dict(feeds)) for feeds in samples]
        names = [value.name for value in model.graph.output]
        values = {name: np.stack([one[index] for one in found]) for index, name in enumerate(names)}
    except Exception as error:  # its exceptions share no base class but Exception
        text = f"ONNX Runtime cannot run the graph, so that nothing can be proved about it: {error}"
        raise fail("SE602", text, WITHOUT) from error
    if not any(np.issubdtype(value.dtype, np.number) or value.dtype == np.bool_ for value in values.values()):
        raise _unproved("no output is a tensor of numbers")
    if not any(value.size for value in values.values()):
        raise _unproved("its outputs are empty on what was fed")
    return values


def difference(reference: Values, found: Values) -> float:
    """The largest difference of any output over the largest value of that output; infinite where shapes differ.

    What is not finite in one must be the same in the other.
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
