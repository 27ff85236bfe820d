"""What a graph computes on random inputs, and how far two graphs are apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from sesurgery.diagnostics import fail

Values = dict[str, NDArray[np.generic]]
Feeds = Mapping[str, NDArray[np.generic]]
BATCH, SIZE = 2, 64
"""What stands for an open first dimension, and for any other."""
TINY = 1e-30
"""An output that is all zero is compared with this."""


def feeds(model: onnx.ModelProto, seed: int = 0) -> Values:
    """Random values for every input: normal for floats, zeros and ones for whole numbers."""
    weights = {tensor.name for tensor in model.graph.initializer}
    random = np.random.default_rng(seed)
    found: Values = {}
    for value in model.graph.input:
        if value.name in weights:
            continue
        dims = value.type.tensor_type.shape.dim
        shape = [
            dim.dim_value if dim.HasField("dim_value") else SIZE if axis else BATCH for axis, dim in enumerate(dims)
        ]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        floats = np.issubdtype(dtype, np.floating)
        found[value.name] = (random.normal(size=shape) if floats else random.integers(0, 2, shape)).astype(dtype)
    return found


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
    except Exception as error:  # its exceptions share no base class but Exception
        text = f"ONNX Runtime cannot run the graph, so that nothing can be proved about it: {error}"
        raise fail("SE602", text, "lower it without verification") from error
    names = [value.name for value in model.graph.output]
    return {name: np.stack([values[index] for values in found]) for index, name in enumerate(names)}


def difference(reference: Values, found: Values) -> float:
    """The largest difference of any output over the largest value of that output; infinite where shapes differ."""
    worst = 0.0
    for name, expected in reference.items():
        other = found[name]
        if expected.shape != other.shape or expected.dtype != other.dtype:
            return np.inf
        if not np.issubdtype(expected.dtype, np.floating):
            worst = max(worst, float(not np.array_equal(expected, other)))
            continue
        known = np.isfinite(expected)
        if not np.array_equal(known, np.isfinite(other)):
            return np.inf
        gap = np.abs(expected[known].astype(np.float64) - other[known].astype(np.float64))
        scale = np.abs(expected[known].astype(np.float64)).max(initial=0.0)
        worst = max(worst, float(gap.max(initial=0.0)) / max(float(scale), TINY))
    return worst
