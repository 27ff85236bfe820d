"""The shapes that an engine of OpenVINO takes: set in its network before it is compiled, and read from its ports."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from sesurgery.backends.base import BuildOptions, TensorInfo
from sesurgery.diagnostics import fail


def set_ranges(model: Any, options: BuildOptions) -> None:
    """Put the ranges of the profiles, or else of the batch, in the place of dimensions that are open."""
    openvino = importlib.import_module("openvino")
    names = {name: port for port in model.inputs for name in port.get_names()}
    unknown = sorted({name for profile in options.profiles for name in profile} - set(names))
    if unknown:
        raise fail("SE604", f"a profile names input {unknown[0]!r}, the file has {', '.join(sorted(names))}")
    shapes = {}
    for port in model.inputs:
        shape = port.get_partial_shape()
        ranges = [profile[name] for profile in options.profiles for name in port.get_names() if name in profile]
        dimensions = list(shape)
        if ranges and len(ranges[0].minimum) != len(dimensions):
            text = f"a profile gives {port.get_any_name()!r} {len(ranges[0].minimum)} dimensions, the file {shape}"
            raise fail("SE604", text)
        for axis, dimension in enumerate(dimensions):
            if not dimension.is_dynamic:
                continue
            if ranges:
                low, high = min(r.minimum[axis] for r in ranges), max(r.maximum[axis] for r in ranges)
            elif axis == 0:
                low, high = options.batch.minimum, options.batch.maximum
            else:
                continue
            dimensions[axis] = openvino.Dimension(low, high)
        shapes[port] = openvino.PartialShape(dimensions)
    model.reshape(shapes)


def tensor_info(port: Any) -> TensorInfo:
    """An input or output as a runner tells it."""
    dimensions = list(port.get_partial_shape())
    names = ("batch" if axis == 0 else f"dim{axis}" for axis in range(len(dimensions)))
    shape = tuple(
        name if dimension.is_dynamic else dimension.get_length()
        for name, dimension in zip(names, dimensions, strict=True)
    )
    try:
        dtype = np.dtype(port.get_element_type().to_dtype()).name
    except (TypeError, RuntimeError):
        dtype = port.get_element_type().get_type_name()
    return TensorInfo(port.get_any_name(), shape, dtype)


def bounds(shape: Any) -> tuple[list[int], list[int]]:
    """Smallest and largest shape; no upper bound is a very large one."""
    low, high = [], []
    for dimension in shape:
        low.append(dimension.get_min_length())
        high.append(dimension.get_max_length() if dimension.get_max_length() >= 0 else np.iinfo(np.int64).max)
    return low, high
